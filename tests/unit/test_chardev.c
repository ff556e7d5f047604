/* Byte streams: queues, the multiplexer's escape keys, connections. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/chardev.h"
#include "base/io.h"
#include "base/thread.h"
#include "tests/lib/turns.h"

#include <errno.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct end {
	struct chardev_user user;
	size_t room;
	char got[4096];
	size_t n;
	unsigned opened, closed, focus, unfocus, breaks;
};

static size_t end_room(struct chardev_user *u)
{
	return container_of(u, struct end, user)->room;
}

static void end_receive(struct chardev_user *u, const u8 *data, size_t bytes)
{
	struct end *e = container_of(u, struct end, user);

	assert_true(bytes <= e->room);
	memcpy(e->got + e->n, data, bytes);
	e->n += bytes;
	e->room -= bytes;
}

static void end_event(struct chardev_user *u, enum chardev_event event)
{
	struct end *e = container_of(u, struct end, user);

	e->opened += event == CHARDEV_OPENED;
	e->closed += event == CHARDEV_CLOSED;
	e->focus += event == CHARDEV_FOCUS;
	e->unfocus += event == CHARDEV_UNFOCUS;
	e->breaks += event == CHARDEV_BREAK;
}

static void end_init(struct end *e, size_t room)
{
	*e = (struct end){
		.room = room,
		.user = {.can_receive = end_room, .receive = end_receive, .event = end_event}};
}

static void end_is(struct end *e, const char *text)
{
	assert_int_equal(e->n, strlen(text));
	assert_memory_equal(e->got, text, e->n);
	e->n = 0;
}

struct fixture {
	struct loop *loop;
	struct chardev *c;
	struct error err;
	int host[2]; /* host[1] is the peer's end */
};

/* Let the loop run for a moment. */
static void turn(struct fixture *x)
{
	run_turns(x->loop, 20);
}

static void setup(struct fixture *x)
{
	memset(x, 0, sizeof(*x));
	assert_int_equal(loop_new(&x->loop, "main", LOOP_AUTO, &x->err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, x->host), 0);
	assert_int_equal(chardev_from_fds(&x->c, x->loop, "test", x->host[0], x->host[0], &x->err),
			 0);
}

static void teardown(struct fixture *x)
{
	chardev_close(x->c);
	loop_free(x->loop);
	close(x->host[1]);
}

static void input_waits_until_the_front_end_has_room(void **state)
{
	struct fixture x;
	struct end e;

	setup(&x);
	end_init(&e, 3);
	assert_int_equal(chardev_attach(x.c, &e.user, &x.err), 0);
	assert_int_equal(e.opened, 1);
	assert_int_equal(write(x.host[1], "abcdefgh", 8), 8);
	turn(&x);
	end_is(&e, "abc");
	e.room = 2;
	chardev_accept_input(&e.user);
	turn(&x);
	end_is(&e, "de");
	e.room = 100;
	chardev_accept_input(&e.user);
	turn(&x);
	end_is(&e, "fgh");
	teardown(&x);
}

static void a_slow_reader_gets_everything_up_to_the_bound(void **state)
{
	enum { BYTES = 600 * 1024 };
	struct fixture x;
	struct end e;
	char *sent = malloc(BYTES), *got = malloc(BYTES);
	size_t n = 0;

	setup(&x);
	end_init(&e, 0);
	assert_int_equal(chardev_attach(x.c, &e.user, &x.err), 0);
	for (size_t i = 0; i < BYTES; i++)
		sent[i] = (char)(i * 7 + i / 251);
	assert_int_equal(chardev_write(&e.user, sent, BYTES), BYTES);
	for (unsigned i = 0; n < BYTES && i < 1000; i++) {
		ssize_t part;

		turn(&x);
		while ((part = read(x.host[1], got + n, BYTES - n)) > 0)
			n += (size_t)part;
	}
	assert_int_equal(n, BYTES);
	assert_memory_equal(sent, got, BYTES);
	free(sent);
	free(got);
	teardown(&x);
}

static void only_one_front_end_without_a_mux(void **state)
{
	struct fixture x;
	struct end a, b;

	setup(&x);
	end_init(&a, 10);
	end_init(&b, 10);
	assert_int_equal(chardev_attach(x.c, &a.user, &x.err), 0);
	assert_int_equal(chardev_attach(x.c, &b.user, &x.err), -EBUSY);
	assert_string_equal(x.err.text, "chardev 'test' is already in use");
	chardev_detach(&a.user);
	assert_int_equal(chardev_attach(x.c, &b.user, &x.err), 0);
	teardown(&x);
}

static void note_quit(void *arg)
{
	++*(unsigned *)arg;
}

static void escape_keys_switch_break_help_and_quit(void **state)
{
	struct fixture x;
	struct end a, b;
	unsigned quits = 0;
	char text[1024];
	ssize_t n;

	setup(&x);
	end_init(&a, 100);
	end_init(&b, 100);
	assert_int_equal(chardev_make_mux(x.c, note_quit, &quits, &x.err), 0);
	assert_int_equal(chardev_attach(x.c, &a.user, &x.err), 0);
	assert_int_equal(chardev_attach(x.c, &b.user, &x.err), 0);
	assert_int_equal(write(x.host[1], "one\1ctwo\1cthree\1\1", 17), 17);
	turn(&x);
	end_is(&a, "onethree\1");
	end_is(&b, "two");
	assert_int_equal(b.focus, 1);
	assert_int_equal(b.unfocus, 1);
	assert_int_equal(write(x.host[1], "\1b\1x\1h", 6), 6);
	turn(&x);
	assert_int_equal(a.breaks, 1);
	assert_int_equal(quits, 1);
	n = read(x.host[1], text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = 0;
	assert_non_null(strstr(text, "C-a c    switch between console and monitor"));
	teardown(&x);
}

static void a_full_front_end_does_not_block_the_escape_key(void **state)
{
	struct fixture x;
	struct end a, b;

	setup(&x);
	end_init(&a, 1);
	end_init(&b, 100);
	assert_int_equal(chardev_make_mux(x.c, NULL, NULL, &x.err), 0);
	assert_int_equal(chardev_attach(x.c, &a.user, &x.err), 0);
	assert_int_equal(chardev_attach(x.c, &b.user, &x.err), 0);
	assert_int_equal(write(x.host[1], "lots\1cq", 7), 7);
	turn(&x);
	end_is(&a, "l");
	end_is(&b, "q");
	teardown(&x);
}

static int dial(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void a_server_socket_takes_one_peer_after_another(void **state)
{
	char dir[] = "/tmp/chardev.XXXXXX", path[64], spec[96], text[16];
	struct fixture x = {0};
	struct end e;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(spec, sizeof(spec), "unix:%s,server,nowait", path);
	assert_int_equal(loop_new(&x.loop, "main", LOOP_AUTO, &x.err), 0);
	assert_int_equal(chardev_open(&x.c, x.loop, "mon", spec, &x.err), 0);
	end_init(&e, 100);
	assert_int_equal(chardev_attach(x.c, &e.user, &x.err), 0);
	assert_int_equal(e.opened, 0);
	for (unsigned i = 1; i <= 2; i++) {
		fd = dial(path);
		assert_int_equal(write(fd, "hi", 2), 2);
		turn(&x);
		assert_int_equal(e.opened, i);
		end_is(&e, "hi");
		chardev_write(&e.user, "yo", 2);
		assert_int_equal(read(fd, text, sizeof(text)), 2);
		close(fd);
		turn(&x);
		assert_int_equal(e.closed, i);
	}
	chardev_close(x.c);
	assert_int_not_equal(access(path, F_OK), 0);
	loop_free(x.loop);
	rmdir(dir);
}

static void a_pty_carries_bytes_both_ways(void **state)
{
	struct fixture x = {0};
	struct end e;
	char text[16];
	int fd;

	assert_int_equal(loop_new(&x.loop, "main", LOOP_AUTO, &x.err), 0);
	assert_int_equal(chardev_open(&x.c, x.loop, "serial0", "pty", &x.err), 0);
	end_init(&e, 100);
	assert_int_equal(chardev_attach(x.c, &e.user, &x.err), 0);
	fd = open(chardev_describe(x.c) + 4, O_RDWR | O_NOCTTY);
	assert_true(fd >= 0);
	chardev_write(&e.user, "out\n", 4);
	assert_int_equal(read(fd, text, sizeof(text)), 4);
	assert_int_equal(write(fd, "in\3", 3), 3);
	turn(&x);
	end_is(&e, "in\3");
	close(fd);
	chardev_close(x.c);
	loop_free(x.loop);
}

static void bad_specs_say_what_was_expected(void **state)
{
	static const char *const bad[] = {"foo",   "file:",	    "stdio,x",
					  "unix:", "unix:/x,serve", "unix:/nonexistent/dir/sock"};
	struct fixture x = {0};

	assert_int_equal(loop_new(&x.loop, "main", LOOP_AUTO, &x.err), 0);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		x.err.text[0] = 0;
		assert_true(chardev_open(&x.c, x.loop, "serial0", bad[i], &x.err) < 0);
		assert_true(strlen(x.err.text) > 10);
	}
	assert_int_equal(chardev_open(&x.c, x.loop, "serial0", "none", &x.err), 0);
	assert_null(x.c);
	loop_free(x.loop);
}

static void a_file_gets_what_is_written(void **state)
{
	char path[] = "/tmp/chardev.XXXXXX", spec[64], text[16];
	struct fixture x = {0};
	struct end e;
	int fd = mkstemp(path);

	snprintf(spec, sizeof(spec), "file:%s", path);
	assert_int_equal(loop_new(&x.loop, "main", LOOP_AUTO, &x.err), 0);
	assert_int_equal(chardev_open(&x.c, x.loop, "serial0", spec, &x.err), 0);
	end_init(&e, 0);
	assert_int_equal(chardev_attach(x.c, &e.user, &x.err), 0);
	chardev_write(&e.user, "hello", 5);
	chardev_close(x.c);
	assert_int_equal(read(fd, text, sizeof(text)), 5);
	loop_free(x.loop);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(input_waits_until_the_front_end_has_room),
		cmocka_unit_test(a_slow_reader_gets_everything_up_to_the_bound),
		cmocka_unit_test(only_one_front_end_without_a_mux),
		cmocka_unit_test(escape_keys_switch_break_help_and_quit),
		cmocka_unit_test(a_full_front_end_does_not_block_the_escape_key),
		cmocka_unit_test(a_server_socket_takes_one_peer_after_another),
		cmocka_unit_test(a_pty_carries_bytes_both_ways),
		cmocka_unit_test(bad_specs_say_what_was_expected),
		cmocka_unit_test(a_file_gets_what_is_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
