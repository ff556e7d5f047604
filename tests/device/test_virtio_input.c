/* virtio-input as its driver sees it: configuration, events, lights, a snapshot. */
#include "devices/i440fx.h"
#include "devices/virtio/input.h"
#include "devices/virtio/pci.h"
#include "tests/lib/fake_machine.h"
#include "tests/lib/turns.h"
#include "tests/lib/vring_driver.h"

#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>

#define RAM    (1 * MiB - 0x60000)
#define BAR    0xe1000000u
#define CONFIG (BAR + 0x2000)
#define NOTIFY (BAR + 0x3000)
#define RINGS  0x10000
#define BUFS   0x40000
#define SIZE   64

struct bench {
	struct fake_machine fm;
	struct loop *loop;
	struct device *dev;
	const struct input_ops *ops;
	u8 devfn;
	struct vring_driver rings[2];
};

static void start_bench(struct bench *b, const struct device_class *cls)
{
	struct error err;
	struct device *bridge;

	memset(b, 0, sizeof(*b));
	fake_machine_init(&b->fm, RAM);
	assert_int_equal(loop_new(&b->loop, "test", LOOP_AUTO, &err), 0);
	b->fm.m.loop = b->loop;
	bridge = fake_device(&b->fm, &i440fx_class, NULL, NULL);
	b->dev = fake_device(&b->fm, cls, bridge, NULL);
	b->ops = virtio_input_ops(b->dev);
	assert_non_null(b->ops);
	b->devfn = ((struct pci_dev *)b->dev)->devfn;
	pci_write(&b->fm, b->devfn, 0x20, 4, BAR);
	pci_write(&b->fm, b->devfn, 0x24, 4, 0);
	pci_write(&b->fm, b->devfn, 0x04, 2, 7);
}

static void end_bench(struct bench *b)
{
	fake_machine_fini(&b->fm);
	loop_free(b->loop);
}

/* What is kicked runs on the loop. */
static void turn(struct bench *b)
{
	run_turns(b->loop, 10);
}

static void set_up_queue(struct bench *b, u16 q)
{
	struct vring_driver *d = &b->rings[q];

	vring_init(d, b->fm.m.mem, RINGS + q * 0x4000u, SIZE);
	mmio_write(&b->fm, BAR + 22, 2, q);
	mmio_write(&b->fm, BAR + 32, 4, d->desc);
	mmio_write(&b->fm, BAR + 40, 4, d->avail);
	mmio_write(&b->fm, BAR + 48, 4, d->used);
	mmio_write(&b->fm, BAR + 28, 2, 1);
}

static void start_driver_with(struct bench *b, u64 features)
{
	mmio_write(&b->fm, BAR + 20, 1, 0);
	mmio_write(&b->fm, BAR + 20, 1, 3);
	mmio_write(&b->fm, BAR + 8, 4, 0);
	mmio_write(&b->fm, BAR + 12, 4, features);
	mmio_write(&b->fm, BAR + 8, 4, 1);
	mmio_write(&b->fm, BAR + 12, 4, 1); /* VERSION_1 */
	mmio_write(&b->fm, BAR + 20, 1, 11);
	assert_int_equal(mmio_read(&b->fm, BAR + 20, 1), 11);
	set_up_queue(b, 0);
	set_up_queue(b, 1);
	b->rings[0].event_idx = b->rings[1].event_idx = features >> VIRTIO_F_EVENT_IDX & 1;
	mmio_write(&b->fm, BAR + 20, 1, 15);
}

static void start_driver(struct bench *b)
{
	start_driver_with(b, 0);
}

static void give_buffers(struct bench *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		u16 slot = b->rings[0].next_avail % SIZE;
		const struct vring_buf buf = {BUFS + slot * 8u, 8, VRING_WRITE};

		vring_add(&b->rings[0], slot, &buf, 1);
	}
	if (vring_wants_kick(&b->rings[0], (u16)n))
		mmio_write(&b->fm, NOTIFY, 2, 0);
	turn(b);
}

/* The next event as type << 48 | code << 32 | value; -1: none. */
static s64 event(struct bench *b)
{
	u32 head, written;
	const u8 *e;

	if (!vring_used(&b->rings[0], &head, &written))
		return -1;
	assert_int_equal(written, 8);
	e = vring_host(&b->rings[0], BUFS + head * 8u, 8);
	return (s64)((u64)load_le16(e) << 48 | (u64)load_le16(e + 2) << 32 | load_le32(e + 4));
}

#define EVENT(type, code, value) ((s64)((u64)(type) << 48 | (u64)(code) << 32 | (u32)(value)))
#define SYN			 EVENT(0, 0, 0)

static u8 config_select(struct bench *b, u8 select, u8 subsel)
{
	mmio_write(&b->fm, CONFIG, 1, select);
	mmio_write(&b->fm, CONFIG + 1, 1, subsel);
	return (u8)mmio_read(&b->fm, CONFIG + 2, 1);
}

static u8 config_byte(struct bench *b, u32 at)
{
	return (u8)mmio_read(&b->fm, CONFIG + 8 + at, 1);
}

static bool config_bit(struct bench *b, unsigned bit)
{
	return config_byte(b, bit / 8) >> bit % 8 & 1;
}

static void each_says_what_it_is(void **state)
{
	static const char name[] = "cowvm Virtio Keyboard";
	struct bench b;

	start_bench(&b, &virtio_keyboard_class);
	assert_int_equal(pci_read(&b.fm, b.devfn, 0, 4), 0x10521af4);
	assert_int_equal(pci_read(&b.fm, b.devfn, 9, 2), 0x0000);
	assert_int_equal(config_select(&b, 1, 0), sizeof(name) - 1);
	for (unsigned i = 0; i < sizeof(name) - 1; i++)
		assert_int_equal(config_byte(&b, i), name[i]);
	assert_int_equal(config_select(&b, 3, 0), 8);
	assert_int_equal(config_byte(&b, 0), 6);
	assert_int_equal(config_select(&b, 0x11, 1), 18); /* keys up to 143 */
	assert_true(config_bit(&b, 1) && config_bit(&b, 30) && config_bit(&b, 103));
	assert_false(config_bit(&b, 0));
	assert_int_equal(config_select(&b, 0x11, 0x11), 1);
	assert_int_equal(config_byte(&b, 0), 7);
	assert_int_equal(config_select(&b, 0x11, 2), 0);
	assert_int_equal(config_select(&b, 0x12, 0), 0);
	assert_int_equal(config_select(&b, 0x77, 3), 0);
	end_bench(&b);
	start_bench(&b, &virtio_tablet_class);
	assert_int_equal(config_select(&b, 0x12, 1), 20);
	assert_int_equal(config_byte(&b, 4), 0xff);
	assert_int_equal(config_byte(&b, 5), 0x7f);
	assert_int_equal(config_select(&b, 0x12, 2), 0);
	assert_int_equal(config_select(&b, 0x11, 3), 1);
	assert_int_equal(config_byte(&b, 0), 3);
	assert_int_equal(config_select(&b, 0x11, 1), 0x114 / 8 + 1);
	end_bench(&b);
}

static void keys_come_with_linux_codes(void **state)
{
	struct bench b;

	start_bench(&b, &virtio_keyboard_class);
	assert_int_equal(b.ops->key(b.dev, 0x1e, true), -EBUSY); /* no driver */
	assert_false(b.ops->is_on(b.dev));
	start_driver(&b);
	assert_true(b.ops->is_on(b.dev));
	give_buffers(&b, 8);
	assert_int_equal(b.ops->key(b.dev, 0x1e, true), 0);
	assert_int_equal(b.ops->key(b.dev, 0xc8, false), 0); /* up arrow */
	assert_int_equal(b.ops->key(b.dev, 0xff, true), -EINVAL);
	assert_int_equal(event(&b), EVENT(1, 30, 1));
	assert_int_equal(event(&b), SYN);
	assert_int_equal(event(&b), EVENT(1, 103, 0));
	assert_int_equal(event(&b), SYN);
	assert_int_equal(event(&b), -1);
	end_bench(&b);
}

static void events_wait_for_buffers_and_groups_stay_whole(void **state)
{
	struct bench b;
	unsigned n = 0;
	s64 e;

	start_bench(&b, &virtio_keyboard_class);
	start_driver(&b);
	give_buffers(&b, 1);
	for (unsigned i = 0; i < 100; i++)
		(void)b.ops->key(b.dev, 2, i % 2 == 0); /* there is not room for all */
	assert_int_equal(event(&b), EVENT(1, 2, 1));
	assert_int_equal(event(&b), -1);
	give_buffers(&b, 63);
	while ((e = event(&b)) >= 0) {
		assert_int_equal(e, n % 2 == 0 ? SYN : EVENT(1, 2, (n / 2) % 2 == 1));
		n++;
	}
	assert_int_equal(n, 63); /* the last one a SYN */
	give_buffers(&b, 60);
	assert_int_equal(event(&b), -1);
	end_bench(&b);
}

static void a_mouse_moves_turns_and_clicks(void **state)
{
	struct input_move m = {.x = 5, .y = -3, .wheel = 1, .buttons = INPUT_LEFT};
	struct bench b;

	start_bench(&b, &virtio_mouse_class);
	start_driver(&b);
	give_buffers(&b, 32);
	assert_int_equal(b.ops->move(b.dev, &m), 0);
	assert_int_equal(event(&b), EVENT(2, 0, 5));
	assert_int_equal(event(&b), EVENT(2, 1, -3));
	assert_int_equal(event(&b), EVENT(1, 0x110, 1));
	assert_int_equal(event(&b), EVENT(2, 8, -1));
	assert_int_equal(event(&b), SYN);
	m = (struct input_move){.buttons = INPUT_RIGHT};
	assert_int_equal(b.ops->move(b.dev, &m), 0);
	assert_int_equal(event(&b), EVENT(1, 0x110, 0));
	assert_int_equal(event(&b), EVENT(1, 0x111, 1));
	assert_int_equal(event(&b), SYN);
	assert_int_equal(b.ops->move(b.dev, &m), 0); /* nothing new */
	assert_int_equal(event(&b), -1);
	end_bench(&b);
}

static void a_tablet_knows_its_place(void **state)
{
	struct input_move m = {.absolute = true, .x = 0x7fff, .y = 0};
	struct bench b;

	start_bench(&b, &virtio_tablet_class);
	assert_true(b.ops->absolute);
	start_driver(&b);
	give_buffers(&b, 16);
	assert_int_equal(b.ops->move(b.dev, &m), 0);
	assert_int_equal(event(&b), EVENT(3, 0, 0x7fff));
	assert_int_equal(event(&b), EVENT(3, 1, 0));
	assert_int_equal(event(&b), SYN);
	end_bench(&b);
}

static void lights_are_taken_from_the_status_queue(void **state)
{
	const struct vring_buf buf = {BUFS + 0x1000, 8, 0};
	struct bench b;
	u32 head, written;
	u8 *e;

	start_bench(&b, &virtio_keyboard_class);
	start_driver(&b);
	e = vring_host(&b.rings[1], buf.addr, 8);
	store_le16(e, 0x11);
	store_le16(e + 2, 1); /* capitals */
	store_le32(e + 4, 1);
	vring_add(&b.rings[1], 0, &buf, 1);
	mmio_write(&b.fm, NOTIFY + 4, 2, 1);
	turn(&b);
	assert_true(vring_used(&b.rings[1], &head, &written));
	assert_int_equal(written, 0);
	assert_int_equal(b.ops->leds(b.dev), INPUT_LED_CAPS);
	store_le32(e + 4, 0);
	vring_add(&b.rings[1], 0, &buf, 1);
	mmio_write(&b.fm, NOTIFY + 4, 2, 1);
	turn(&b);
	assert_int_equal(b.ops->leds(b.dev), 0);
	end_bench(&b);
}

static void a_buffer_that_is_too_small_needs_a_reset(void **state)
{
	const struct vring_buf buf = {BUFS, 7, VRING_WRITE};
	struct bench b;

	start_bench(&b, &virtio_keyboard_class);
	start_driver(&b);
	vring_add(&b.rings[0], 0, &buf, 1);
	(void)b.ops->key(b.dev, 2, true);
	assert_true(mmio_read(&b.fm, BAR + 20, 1) & 0x40);
	(void)b.ops->key(b.dev, 2, false);
	start_driver(&b);
	give_buffers(&b, 4);
	assert_false(mmio_read(&b.fm, BAR + 20, 1) & 0x40);
	end_bench(&b);
}

/* What was done before is shown; nothing is left over for the reset to stumble on. */
static void a_queue_that_breaks_has_shown_what_was_done(void **state)
{
	const struct vring_buf good = {BUFS + 0x1000, 8, 0}, bad = {BUFS + 0x1000, 5, 0};
	struct bench b;
	u32 head, written;

	start_bench(&b, &virtio_keyboard_class);
	start_driver(&b);
	vring_add(&b.rings[1], 0, &good, 1);
	vring_add(&b.rings[1], 1, &bad, 1);
	mmio_write(&b.fm, NOTIFY + 4, 2, 1);
	turn(&b);
	assert_true(mmio_read(&b.fm, BAR + 20, 1) & 0x40);
	assert_true(vring_used(&b.rings[1], &head, &written));
	assert_int_equal(head, 0);
	assert_false(vring_used(&b.rings[1], &head, &written));
	start_driver(&b);
	end_bench(&b);
}

static void waiting_events_are_part_of_a_snapshot(void **state)
{
	struct state_buf saved = {0};
	struct error err;
	struct bench b;

	start_bench(&b, &virtio_keyboard_class);
	start_driver(&b);
	assert_int_equal(b.ops->key(b.dev, 0x10, true), 0);
	b.dev->cls->pause(b.dev);
	fake_save(b.dev, &saved);
	device_reset(b.dev);
	saved.at = 0;
	assert_int_equal(device_load(b.dev, &saved, &err), 0);
	b.dev->cls->resume(b.dev);
	give_buffers(&b, 4);
	assert_int_equal(event(&b), EVENT(1, 16, 1));
	assert_int_equal(event(&b), SYN);
	state_buf_fini(&saved);
	end_bench(&b);
}

/* --- who gets what (devices/input) ---------------------------------------------------- */

struct sink {
	struct device dev;
	unsigned keys, moves;
	bool on;
	struct input_move last;
};

static int take_key(struct device *dev, u32 keycode, bool pressed)
{
	container_of(dev, struct sink, dev)->keys++;
	return 0;
}

static int take_move(struct device *dev, const struct input_move *m)
{
	struct sink *s = container_of(dev, struct sink, dev);

	s->moves++;
	s->last = *m;
	return 0;
}

static bool sink_is_on(struct device *dev)
{
	return container_of(dev, struct sink, dev)->on;
}

static void the_newest_that_listens_gets_it(void **state)
{
	static const struct input_ops keyboard = {
		.name = "k", .key = take_key, .is_on = sink_is_on};
	static const struct input_ops mouse = {.name = "m", .move = take_move, .is_on = sink_is_on};
	static const struct input_ops tablet = {
		.name = "t", .absolute = true, .move = take_move, .is_on = sink_is_on};
	struct input_move steps = {.x = 1}, place = {.absolute = true};
	struct sink s[4] = {{.keys = 0}};
	struct input *in = input_new();
	const struct input_ops *ops;

	input_add(in, &s[0].dev, &keyboard);
	input_add(in, &s[1].dev, &mouse);
	input_add(in, &s[2].dev, &keyboard);
	input_add(in, &s[3].dev, &tablet);
	input_key(in, 2, true); /* the machine stands still */
	assert_int_equal(s[0].keys, 0);
	input_enable(in, true);
	input_key(in, 2, true);
	assert_int_equal(s[0].keys, 1); /* nobody listens: the first */
	s[2].on = true;
	input_key(in, 2, true);
	assert_int_equal(s[2].keys, 1);
	assert_false(input_is_absolute(in));
	input_move(in, &steps);
	assert_int_equal(s[1].moves, 1);
	s[1].on = s[3].on = true;
	assert_true(input_is_absolute(in));
	input_move(in, &place);
	assert_int_equal(s[3].moves, 1);
	input_move(in, &steps); /* the monitor's: a tablet has no use for them */
	assert_int_equal(s[1].moves, 2);
	assert_int_equal(input_choose_mouse(in, 2, &ops), 0);
	assert_false(input_is_absolute(in));
	assert_int_equal(input_choose_mouse(in, 1, &ops), -EINVAL);
	assert_int_equal(input_choose_mouse(in, 5, &ops), -ENOENT);
	input_free(in);
}

/* A driver kicks only when it is asked to: for the buffer behind the last one. */
static void a_driver_is_asked_for_more_when_its_buffers_are_used_up(void **state)
{
	struct bench b;

	start_bench(&b, &virtio_keyboard_class);
	start_driver_with(&b, (u64)1 << VIRTIO_F_EVENT_IDX);
	give_buffers(&b, 3);
	assert_int_equal(b.ops->key(b.dev, 0x1e, true), 0);
	assert_int_equal(b.ops->key(b.dev, 0x1e, false), 0);
	assert_int_equal(event(&b), EVENT(1, 30, 1));
	assert_int_equal(event(&b), SYN);
	assert_int_equal(event(&b), EVENT(1, 30, 0));
	assert_int_equal(event(&b), -1);
	give_buffers(&b, 1);
	assert_int_equal(event(&b), SYN);
	end_bench(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_driver_is_asked_for_more_when_its_buffers_are_used_up),
		cmocka_unit_test(each_says_what_it_is),
		cmocka_unit_test(keys_come_with_linux_codes),
		cmocka_unit_test(events_wait_for_buffers_and_groups_stay_whole),
		cmocka_unit_test(a_mouse_moves_turns_and_clicks),
		cmocka_unit_test(a_tablet_knows_its_place),
		cmocka_unit_test(lights_are_taken_from_the_status_queue),
		cmocka_unit_test(a_buffer_that_is_too_small_needs_a_reset),
		cmocka_unit_test(a_queue_that_breaks_has_shown_what_was_done),
		cmocka_unit_test(waiting_events_are_part_of_a_snapshot),
		cmocka_unit_test(the_newest_that_listens_gets_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
