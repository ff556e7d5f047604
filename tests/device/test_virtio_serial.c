/* virtio-serial as its driver sees it: ports that are told of, bytes both ways, ends that
 * come and go, drivers of one port only, nonsense, a snapshot. */
#include "base/chardev.h"
#include "devices/virtio/serial.h"
#include "tests/lib/virtio_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>

enum { F_MULTIPORT = 1 << 1, F_EMERG = 1 << 2 };
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };
#define MSG  RIG_BUFS
#define IN   (RIG_BUFS + 0x1000)
#define DATA (RIG_BUFS + 0x8000)

struct bench {
	struct virtio_rig r;
	struct chardev *chardevs[2];
	int peers[2]; /* the other ends */
	u16 given;    /* control buffers so far */
};

static struct device *add_port(struct bench *b, const struct device_class *cls, unsigned n,
			       const char *name)
{
	struct prop_value values[] = {{.name = "chardev", .ptr = b->chardevs[n]},
				      {.name = "name", .text = name}};
	struct device_args args = {.parent = b->r.dev, .values = values, .n_values = name ? 2 : 1};
	struct device *dev;
	struct error err;

	if (device_new(&dev, &b->r.fm.m, cls, &args, &err) < 0)
		fail_msg("%s", err.text);
	return dev;
}

static void open_chardev(struct bench *b, unsigned n)
{
	struct error err;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	assert_int_equal(chardev_from_fds(&b->chardevs[n], b->r.loop, n ? "c1" : "c0", fds[0],
					  fds[0], &err),
			 0);
	b->peers[n] = fds[1];
}

/* A console at port 0, and a socket for another port. */
static void start_console(struct bench *b)
{
	memset(b, 0, sizeof(*b));
	vdev_init(&b->r);
	vdev_attach(&b->r, fake_device(&b->r.fm, &virtio_serial_class, b->r.bridge, NULL));
	open_chardev(b, 0);
	open_chardev(b, 1);
	add_port(b, &virtconsole_class, 0, NULL);
}

static void start_bench(struct bench *b)
{
	start_console(b);
	add_port(b, &virtserialport_class, 1, "org.test.0");
}

static void end_bench(struct bench *b)
{
	fake_machine_fini(&b->r.fm);
	for (unsigned i = 0; i < 2; i++) {
		chardev_close(b->chardevs[i]);
		if (b->peers[i] >= 0)
			close(b->peers[i]);
	}
	loop_free(b->r.loop);
}

static void give_control_buffers(struct bench *b, unsigned n)
{
	while (n--)
		vdev_offer(&b->r, 2, IN + (b->given++ % 32) * 64u, 64);
}

static void say(struct bench *b, u32 port, u16 event, u16 value)
{
	u8 bytes[8];

	store_le32(bytes, port);
	store_le16(bytes + 4, event);
	store_le16(bytes + 6, value);
	vdev_send(&b->r, 3, MSG, bytes, sizeof(bytes));
	assert_int_equal(vdev_used(&b->r, 3), 0);
}

/* The next message must be this one; text is what follows it. */
static void hear(struct bench *b, u32 port, u16 event, u16 value, const char *text)
{
	u32 head = 0, written = 0;
	const u8 *p;

	assert_true(vring_used(&b->r.rings[2], &head, &written));
	assert_int_equal(written, 8 + strlen(text));
	p = vring_host(&b->r.rings[2], IN + (head % 32) * 64u, 64);
	assert_int_equal(load_le32(p), port);
	assert_int_equal(load_le16(p + 4), event);
	assert_int_equal(load_le16(p + 6), value);
	assert_memory_equal(p + 8, text, strlen(text));
}

static void hear_nothing(struct bench *b)
{
	assert_int_equal(vdev_used(&b->r, 2), -1);
}

static void introduce_with(struct bench *b, bool legacy, u64 features)
{
	vdev_start(&b->r, legacy, F_MULTIPORT | features, 6);
	b->given = 0;
	give_control_buffers(b, 16);
	say(b, 0, READY, 1);
	hear(b, 0, ADD, 1, "");
	hear(b, 1, ADD, 1, "");
	hear_nothing(b);
	say(b, 0, PORT_READY, 1);
	hear(b, 0, CONSOLE, 1, "");
	hear(b, 0, OPEN, 1, "");
	say(b, 1, PORT_READY, 1);
	hear(b, 1, NAME, 1, "org.test.0");
	hear(b, 1, OPEN, 1, "");
	hear_nothing(b);
}

static void introduce(struct bench *b, bool legacy)
{
	introduce_with(b, legacy, 0);
}

static void expect_at(struct bench *b, unsigned n, const char *text)
{
	char got[64] = "";
	ssize_t bytes;

	vdev_turn(&b->r);
	bytes = read(b->peers[n], got, sizeof(got) - 1);
	assert_int_equal(bytes, (ssize_t)strlen(text));
	assert_string_equal(got, text);
}

static void ports_are_told_of_in_the_order_of_the_book(void **state)
{
	for (int legacy = 0; legacy < 2; legacy++) {
		struct bench b;

		start_bench(&b);
		introduce(&b, legacy);
		assert_int_equal(vdev_config(&b.r, 4, 4), 31);
		assert_true(vdev_offered(&b.r) & F_EMERG);
		end_bench(&b);
	}
}

static void bytes_go_both_ways(void **state)
{
	struct bench b;

	start_bench(&b);
	introduce(&b, false);
	vdev_send(&b.r, 5, DATA, "to the host", 11);
	assert_int_equal(vdev_used(&b.r, 5), 0);
	expect_at(&b, 1, "to the host");
	vdev_send(&b.r, 1, DATA, "console", 7);
	expect_at(&b, 0, "console");
	/* Nobody in the guest has opened it yet. */
	assert_int_equal(write(b.peers[1], "0123456789", 10), 10);
	vdev_offer(&b.r, 4, DATA, 4);
	vdev_offer(&b.r, 4, DATA + 4, 100);
	assert_int_equal(vdev_used(&b.r, 4), -1);
	say(&b, 1, OPEN, 1);
	vdev_turn(&b.r);
	assert_int_equal(vdev_used(&b.r, 4), 4);
	assert_int_equal(vdev_used(&b.r, 4), 6);
	assert_memory_equal(vring_host(&b.r.rings[0], DATA, 10), "0123456789", 10);
	end_bench(&b);
}

static void the_guest_hears_when_the_other_end_goes(void **state)
{
	struct bench b;

	start_bench(&b);
	introduce(&b, false);
	close(b.peers[1]);
	b.peers[1] = -1;
	vdev_turn(&b.r);
	hear(&b, 1, OPEN, 0, "");
	vdev_send(&b.r, 5, DATA, "lost", 4);
	assert_int_equal(vdev_used(&b.r, 5), 0);
	end_bench(&b);
}

/* Messages wait for buffers, also over a snapshot. */
static void what_is_not_told_yet_is_part_of_a_snapshot(void **state)
{
	struct bench b;

	start_bench(&b);
	vdev_start(&b.r, false, F_MULTIPORT, 6);
	say(&b, 0, READY, 1);
	give_control_buffers(&b, 1);
	hear(&b, 0, ADD, 1, "");
	vdev_round_trip(&b.r);
	give_control_buffers(&b, 1);
	hear(&b, 1, ADD, 1, "");
	say(&b, 1, PORT_READY, 1);
	vdev_round_trip(&b.r);
	give_control_buffers(&b, 3);
	hear(&b, 1, NAME, 1, "org.test.0");
	hear(&b, 1, OPEN, 1, "");
	hear_nothing(&b);
	end_bench(&b);
}

/* The last port's queues are the last two of 64. */
static void there_is_room_for_31_ports(void **state)
{
	struct prop_value values[] = {{.name = "nr", .text = "30"}, {.name = "chardev"}};
	struct device_args args = {.values = values, .n_values = 2};
	struct device *dev;
	struct error err;

	for (int legacy = 0; legacy < 2; legacy++) {
		struct bench b;

		start_console(&b);
		values[1].ptr = b.chardevs[1];
		args.parent = b.r.dev;
		assert_int_equal(device_new(&dev, &b.r.fm.m, &virtserialport_class, &args, &err),
				 0);
		vdev_start(&b.r, legacy, F_MULTIPORT, 64);
		give_control_buffers(&b, 16);
		say(&b, 0, READY, 1);
		hear(&b, 0, ADD, 1, "");
		hear(&b, 30, ADD, 1, "");
		say(&b, 30, PORT_READY, 1);
		hear(&b, 30, OPEN, 1, "");
		say(&b, 30, OPEN, 1);
		vdev_round_trip(&b.r);
		vdev_send(&b.r, 63, DATA, "last", 4);
		expect_at(&b, 1, "last");
		assert_int_equal(write(b.peers[1], "in", 2), 2);
		vdev_offer(&b.r, 62, DATA, 10);
		vdev_turn(&b.r);
		assert_int_equal(vdev_used(&b.r, 62), 2);
		end_bench(&b);
	}
}

/* As they were when there was room for seven ports. */
static void older_snapshots_can_be_loaded(void **state)
{
	const struct device_class *cls = &virtio_serial_class;
	struct state_field old[32];
	struct state_buf saved = {0};
	unsigned n = 0;
	struct error err;
	struct bench b;

	for (const struct state_field *f = cls->state; f->kind != STATE_KIND_END; f++) {
		if (!strcmp(f->name, "more"))
			continue;
		old[n] = *f;
		old[n++].count = f->least ? f->least : f->count;
	}
	old[n].kind = STATE_KIND_END;
	start_bench(&b);
	introduce(&b, false);
	say(&b, 1, OPEN, 1);
	cls->pause(b.r.dev);
	state_save(&saved, b.r.dev->id, old, b.r.dev);
	device_reset(b.r.dev);
	assert_int_equal(device_load(b.r.dev, &saved, &err), 0);
	cls->resume(b.r.dev);
	state_buf_fini(&saved);
	vdev_offer(&b.r, 4, DATA, 10);
	assert_int_equal(write(b.peers[1], "on", 2), 2);
	vdev_turn(&b.r);
	assert_int_equal(vdev_used(&b.r, 4), 2);
	mmio_write(&b.r.fm, RIG_MEM + 22, 2, 63); /* a queue that was not there */
	assert_int_equal(mmio_read(&b.r.fm, RIG_MEM + 24, 2), 128);
	end_bench(&b);
}

static void drivers_of_one_port_have_a_console(void **state)
{
	for (int legacy = 0; legacy < 2; legacy++) {
		struct bench b;

		start_bench(&b);
		vdev_start(&b.r, legacy, 0, 2);
		vdev_send(&b.r, 1, DATA, "old", 3);
		expect_at(&b, 0, "old");
		assert_int_equal(write(b.peers[0], "in", 2), 2);
		vdev_offer(&b.r, 0, DATA, 10);
		vdev_turn(&b.r);
		assert_int_equal(vdev_used(&b.r, 0), 2);
		vdev_set_config(&b.r, 8, 4, '!');
		expect_at(&b, 0, "!");
		end_bench(&b);
	}
}

static void nonsense_is_counted_or_needs_a_reset(void **state)
{
	struct bench b;

	start_bench(&b);
	introduce(&b, false);
	say(&b, 5, PORT_READY, 1);
	say(&b, 31, PORT_READY, 1);
	say(&b, 0xffffffff, OPEN, 1);
	say(&b, 1, PORT_READY, 0);
	say(&b, 0, READY, 0);
	say(&b, 1, 77, 3);
	assert_int_equal(b.r.dev->guest_errors, 5);
	assert_false(vdev_status(&b.r) & 0x40);
	vdev_kick(&b.r, 9); /* a queue that is not set up */
	vdev_send(&b.r, 3, MSG, "short", 5);
	assert_true(vdev_status(&b.r) & 0x40);
	introduce(&b, true);
	say(&b, 1, OPEN, 1);
	assert_int_equal(write(b.peers[1], "x", 1), 1);
	vdev_send(&b.r, 4, DATA, "only to read", 12);
	vdev_turn(&b.r);
	assert_true(vdev_status(&b.r) & 0x40);
	end_bench(&b);
}

static void refuse(struct bench *b, const struct device_class *cls, const char *nr,
		   const char *says)
{
	struct prop_value value = {.name = "nr", .text = nr};
	struct device_args args = {.parent = b->r.dev, .values = &value, .n_values = 1};
	struct device *dev;
	struct error err;

	assert_true(device_new(&dev, &b->r.fm.m, cls, &args, &err) < 0);
	if (!strstr(err.text, says))
		fail_msg("'%s' does not say '%s'", err.text, says);
}

static void ports_have_numbers_of_their_own(void **state)
{
	struct device_args nowhere = {.parent = NULL};
	struct device *dev;
	struct error err;
	struct bench b;

	start_bench(&b);
	refuse(&b, &virtserialport_class, "1", "A port already exists at id 1");
	refuse(&b, &virtserialport_class, "31", "Out-of-range port id specified, max. allowed: 30");
	refuse(&b, &virtconsole_class, "0", "A port already exists at id 0");
	assert_true(device_new(&dev, &b.r.fm.m, &virtserialport_class, &nowhere, &err) < 0);
	assert_string_equal(err.text,
			    "No 'virtio-serial-bus' bus found for device 'virtserialport'");
	for (unsigned i = 2; i < 31; i++) {
		struct device_args args = {.parent = b.r.dev};

		assert_int_equal(device_new(&dev, &b.r.fm.m, &virtserialport_class, &args, &err),
				 0);
	}
	refuse(&b, &virtserialport_class, "4294967295", "Maximum port limit for this device");
	end_bench(&b);
}

/* A driver kicks only when it is asked to: for the buffer behind the last one. */
static void a_driver_is_asked_for_more_when_its_buffers_are_used_up(void **state)
{
	static const u64 wanted[] = {0, (u64)1 << VIRTIO_F_EVENT_IDX};

	for (unsigned i = 0; i < ARRAY_LEN(wanted); i++) {
		struct bench b;

		start_bench(&b);
		introduce_with(&b, false, wanted[i]);
		for (unsigned n = 0; n < 3; n++)
			vdev_offer(&b.r, 4, DATA + 4 * n, 4);
		say(&b, 1, OPEN, 1);
		assert_int_equal(write(b.peers[1], "0123456789abcdefghij", 20), 20);
		vdev_turn(&b.r);
		for (unsigned n = 0; n < 3; n++)
			assert_int_equal(vdev_used(&b.r, 4), 4);
		vdev_offer(&b.r, 4, DATA + 12, 4);
		assert_int_equal(vdev_used(&b.r, 4), 4);
		vdev_offer(&b.r, 4, DATA + 16, 100);
		assert_int_equal(vdev_used(&b.r, 4), 4);
		assert_memory_equal(vring_host(&b.r.rings[0], DATA, 20), "0123456789abcdefghij",
				    20);
		end_bench(&b);
	}
}

static u64 read_all(int fd, u8 *sum)
{
	static u8 part[65536];
	u64 bytes = 0;
	ssize_t n;

	while ((n = read(fd, part, sizeof(part))) > 0)
		for (ssize_t i = 0; i < n; i++, bytes++)
			*sum = (u8)(*sum * 31 + part[i]);
	return bytes;
}

#define PIECE 0x8000u /* bytes of a request, of which all are the same */

/* A port is a stream that loses nothing: the guest waits for a slow reader.  A console
 * does not wait. */
static void a_port_waits_for_a_slow_reader_and_a_console_does_not(void **state)
{
	static const unsigned queues[] = {1, 5};
	static u8 piece[PIECE];
	u8 want = 0, sum = 0;
	unsigned sent = 0, used = 0;
	u64 got = 0;
	struct bench b;

	start_bench(&b);
	introduce_with(&b, false, (u64)1 << VIRTIO_F_EVENT_IDX);
	for (unsigned port = 0; port < 2; port++) {
		used = 0;
		for (sent = 0; sent < 64; sent++) { /* 2 MiB */
			memset(piece, (int)sent, PIECE);
			vdev_send(&b.r, queues[port], DATA + sent * PIECE, piece, PIECE);
			while (vdev_used(&b.r, queues[port]) == 0)
				used++;
		}
		if (port == 0)
			assert_int_equal(used, 64);
		else
			assert_in_range(used, 16, 60);
	}
	for (unsigned i = 0; i < 1000 && got < 64 * PIECE; i++) {
		got += read_all(b.peers[1], &sum);
		vdev_turn(&b.r);
		while (vdev_used(&b.r, 5) == 0)
			used++;
	}
	assert_int_equal(got, 64 * PIECE);
	assert_int_equal(used, 64);
	for (unsigned i = 0; i < 64 * PIECE; i++)
		want = (u8)(want * 31 + (u8)(i / PIECE));
	assert_int_equal(sum, want);
	end_bench(&b);
}

/* The reader that was waited for goes: so does what it did not read. */
static void a_port_does_not_wait_for_a_reader_that_has_gone(void **state)
{
	static const u8 piece[PIECE];
	unsigned used = 0;
	struct bench b;

	start_bench(&b);
	introduce(&b, false);
	for (unsigned i = 0; i < 64; i++)
		vdev_send(&b.r, 5, DATA, piece, PIECE);
	close(b.peers[1]);
	b.peers[1] = -1;
	vdev_turn(&b.r);
	while (vdev_used(&b.r, 5) == 0)
		used++;
	assert_int_equal(used, 64);
	end_bench(&b);
}

static void messages_wait_for_control_buffers(void **state)
{
	struct bench b;

	start_bench(&b);
	vdev_start(&b.r, false, F_MULTIPORT | (u64)1 << VIRTIO_F_EVENT_IDX, 6);
	give_control_buffers(&b, 1);
	say(&b, 0, READY, 1);
	hear(&b, 0, ADD, 1, "");
	give_control_buffers(&b, 1);
	hear(&b, 1, ADD, 1, "");
	end_bench(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_are_told_of_in_the_order_of_the_book),
		cmocka_unit_test(bytes_go_both_ways),
		cmocka_unit_test(a_driver_is_asked_for_more_when_its_buffers_are_used_up),
		cmocka_unit_test(a_port_waits_for_a_slow_reader_and_a_console_does_not),
		cmocka_unit_test(a_port_does_not_wait_for_a_reader_that_has_gone),
		cmocka_unit_test(messages_wait_for_control_buffers),
		cmocka_unit_test(the_guest_hears_when_the_other_end_goes),
		cmocka_unit_test(what_is_not_told_yet_is_part_of_a_snapshot),
		cmocka_unit_test(there_is_room_for_31_ports),
		cmocka_unit_test(older_snapshots_can_be_loaded),
		cmocka_unit_test(drivers_of_one_port_have_a_console),
		cmocka_unit_test(nonsense_is_counted_or_needs_a_reset),
		cmocka_unit_test(ports_have_numbers_of_their_own),
	};

	return cmocka_run_group_tests_name("virtio serial", tests, NULL, NULL);
}
