/* Loops: timers, posted calls, watches, idle hooks, pool calls, on both backends. */
#define _GNU_SOURCE
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/pool.h"
#include "base/thread.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- timers ----------------------------------------------------------------- */

#define TIMERS 40

struct alarm {
	struct loop_timer timer;
	struct clockwork *all;
	unsigned rank; /* place in the order of due times */
};

struct clockwork {
	struct alarm alarms[TIMERS];
	unsigned order[TIMERS], fired;
};

static void alarm_due(struct loop_timer *timer)
{
	struct alarm *a = container_of(timer, struct alarm, timer);

	assert_true(now_ns() >= timer->due_ns);
	a->all->order[a->all->fired++] = a->rank;
	if (a->all->fired == TIMERS / 2)
		loop_stop(timer->loop);
}

static void timers_fire_in_order_of_time_and_deleted_ones_never(void **state)
{
	struct loop *loop = *state;
	struct clockwork c = {0};
	u64 base = now_ns() + 2 * NS_PER_MS;

	for (unsigned i = 0; i < TIMERS; i++) {
		struct alarm *a = &c.alarms[i];

		a->all = &c;
		a->rank = (i * 17) % TIMERS; /* a permutation */
		loop_timer_init(loop, &a->timer, alarm_due);
		loop_timer_set(&a->timer, base + UINT64_MAX / 4);
		loop_timer_set(&a->timer, base + a->rank * 10000);
	}
	for (unsigned i = 0; i < TIMERS; i++)
		if (c.alarms[i].rank % 2)
			loop_timer_del(&c.alarms[i].timer);
	loop_timer_del(&c.alarms[1].timer);
	loop_run(loop);
	assert_int_equal(c.fired, TIMERS / 2);
	for (unsigned i = 0; i < TIMERS / 2; i++)
		assert_int_equal(c.order[i], 2 * i);
}

struct metronome {
	struct loop_timer timer;
	unsigned left;
};

static void tick(struct loop_timer *timer)
{
	struct metronome *m = container_of(timer, struct metronome, timer);

	if (--m->left)
		loop_timer_set(timer, timer->due_ns + 100000);
	else
		loop_stop(timer->loop);
}

static void a_timer_may_arm_itself_again(void **state)
{
	struct metronome m = {.left = 10};
	u64 start = now_ns();

	loop_timer_init(*state, &m.timer, tick);
	loop_timer_set(&m.timer, start + 100000);
	loop_run(*state);
	assert_int_equal(m.left, 0);
	assert_true(now_ns() - start >= 1000000);
}

/* --- posted calls ----------------------------------------------------------- */

#define POSTERS	   3
#define PER_POSTER 2000

struct post_box {
	struct loop *loop;
	unsigned count;
};

struct counter {
	struct loop_call call;
	struct post_box *box;
	unsigned seq;
	unsigned *last; /* of the same poster */
};

struct posting {
	struct loop *loop;
	struct counter *counters;
};

static void count_up(struct loop_call *call)
{
	struct counter *c = container_of(call, struct counter, call);

	assert_int_equal(c->seq, *c->last);
	++*c->last;
	if (++c->box->count == POSTERS * PER_POSTER)
		loop_stop(c->box->loop);
}

static void *post_many(void *arg)
{
	struct posting *p = arg;

	for (unsigned i = 0; i < PER_POSTER; i++)
		loop_post(p->loop, &p->counters[i].call);
	return NULL;
}

static void posts_of_several_threads_arrive_once_and_in_order(void **state)
{
	struct post_box box = {.loop = *state};
	struct posting p[POSTERS];
	unsigned last[POSTERS] = {0};
	pthread_t threads[POSTERS];
	struct error err;

	for (unsigned t = 0; t < POSTERS; t++) {
		p[t].loop = *state;
		p[t].counters = xnew_n(struct counter, PER_POSTER);
		for (unsigned i = 0; i < PER_POSTER; i++)
			p[t].counters[i] = (struct counter){
				.call.fn = count_up, .box = &box, .seq = i, .last = &last[t]};
		assert_int_equal(thread_start(&threads[t], "post", post_many, &p[t], &err), 0);
	}
	loop_run(*state);
	assert_int_equal(box.count, POSTERS * PER_POSTER);
	for (unsigned t = 0; t < POSTERS; t++) {
		pthread_join(threads[t], NULL);
		free(p[t].counters);
	}
}

static void note_thread(void *arg)
{
	*(u32 *)arg = thread_id();
}

static void call_wait_runs_on_the_loops_thread_and_waits(void **state)
{
	struct loop *loop = *state;
	struct error err;
	u32 ran_on = 0;

	assert_true(loop_is_current(loop));
	assert_int_equal(loop_start_thread(loop, &err), 0);
	assert_false(loop_is_current(loop));
	for (unsigned i = 0; i < 500; i++) {
		ran_on = 0;
		loop_call_wait(loop, note_thread, &ran_on);
		assert_true(ran_on != 0 && ran_on != thread_id());
	}
	loop_join(loop);
}

static void a_stop_before_the_run_is_not_lost(void **state)
{
	loop_stop(*state);
	loop_run(*state);
}

/* --- watches ---------------------------------------------------------------- */

struct pipe_watch {
	struct loop_watch watch;
	int fds[2];
	unsigned calls, take;
	u32 revents;
	struct pipe_watch *victim; /* deleted at the first call */
};

static void pipe_ready(struct loop_watch *watch, u32 revents)
{
	struct pipe_watch *p = container_of(watch, struct pipe_watch, watch);
	u8 byte;

	p->calls++;
	p->revents = revents;
	if (p->victim) {
		loop_watch_del(&p->victim->watch);
		p->victim = NULL;
	}
	for (unsigned i = 0; i < p->take; i++)
		assert_int_equal(sys_read(p->fds[0], &byte, 1), 1);
}

static void pipe_open(struct loop *loop, struct pipe_watch *p, unsigned take)
{
	*p = (struct pipe_watch){.take = take};
	assert_int_equal(pipe(p->fds), 0);
	loop_watch_add(loop, &p->watch, p->fds[0], POLLIN, pipe_ready);
}

static void pipe_close(struct pipe_watch *p)
{
	loop_watch_del(&p->watch);
	close(p->fds[0]);
	close(p->fds[1]);
}

static void settle(struct fiber *f)
{
	fiber_sleep_ns(f, 3 * NS_PER_MS);
}

/* Wait for that many calls, however busy the machine, then for one too many. */
static void settle_at(struct fiber *f, const struct pipe_watch *p, unsigned calls)
{
	for (unsigned i = 0; i < 5000 && p->calls < calls; i++)
		fiber_sleep_ns(f, NS_PER_MS);
	settle(f);
	assert_int_equal(p->calls, calls);
}

static void watch_a_pipe(struct fiber *f, void *arg)
{
	struct pipe_watch p;

	pipe_open(fiber_loop(f), &p, 1);
	settle_at(f, &p, 0);
	assert_int_equal(sys_write(p.fds[1], "abc", 3), 3);
	settle_at(f, &p, 3); /* level-triggered: once for each byte taken */
	assert_true(p.revents & POLLIN);

	loop_watch_set(&p.watch, 0);
	assert_int_equal(sys_write(p.fds[1], "d", 1), 1);
	settle_at(f, &p, 3);
	loop_watch_set(&p.watch, POLLIN);
	settle_at(f, &p, 4);

	loop_watch_set(&p.watch, 0);
	loop_watch_set(&p.watch, POLLIN);
	assert_int_equal(sys_write(p.fds[1], "e", 1), 1);
	settle_at(f, &p, 5);
	pipe_close(&p);
}

static void a_watch_calls_while_there_is_something_and_can_be_paused(void **state)
{
	assert_int_equal(loop_run_fiber(*state, watch_a_pipe, NULL), 0);
}

static void delete_from_callback(struct fiber *f, void *arg)
{
	struct pipe_watch a, b;

	pipe_open(fiber_loop(f), &a, 1);
	pipe_open(fiber_loop(f), &b, 1);
	a.victim = &b;
	b.victim = &a;
	settle(f);
	assert_int_equal(sys_write(a.fds[1], "x", 1), 1);
	assert_int_equal(sys_write(b.fds[1], "x", 1), 1);
	while (!a.calls && !b.calls)
		settle(f);
	settle(f);
	assert_int_equal(a.calls + b.calls, 1); /* the first deleted the other */
	loop_watch_del(a.calls ? &a.watch : &b.watch);
	close(a.fds[0]);
	close(a.fds[1]);
	close(b.fds[0]);
	close(b.fds[1]);
}

static void a_deleted_watch_is_not_called_even_if_it_was_ready(void **state)
{
	assert_int_equal(loop_run_fiber(*state, delete_from_callback, NULL), 0);
}

struct bell {
	struct loop_watch watch;
	unsigned calls;
	bool deletes;
};

static void bell_rings(struct loop_watch *watch, u32 revents)
{
	struct bell *b = container_of(watch, struct bell, watch);

	b->calls++;
	if (b->deletes)
		loop_watch_del(&b->watch);
}

static void ring_and_settle(struct fiber *f, struct bell *b, int fd)
{
	unsigned before = b->calls;
	u64 one = 1;

	assert_int_equal(sys_write(fd, &one, sizeof(one)), sizeof(one));
	for (unsigned i = 0; i < 5000 && b->calls == before; i++)
		fiber_sleep_ns(f, NS_PER_MS);
	settle(f);
	assert_int_equal(b->calls, before + 1); /* and not again and again */
}

static void watch_a_bell(struct fiber *f, void *arg)
{
	struct bell b = {.calls = 0};
	int fd = sys_eventfd();
	u64 one = 1;

	loop_watch_bell(fiber_loop(f), &b.watch, fd, bell_rings);
	settle(f);
	assert_int_equal(b.calls, 0);
	for (unsigned i = 0; i < 3; i++)
		ring_and_settle(f, &b, fd);
	loop_watch_del(&b.watch);
	assert_int_equal(sys_write(fd, &one, sizeof(one)), sizeof(one));
	settle(f);
	assert_int_equal(b.calls, 3);

	/* What rang before is heard; and a bell may be deleted by what it calls. */
	loop_watch_bell(fiber_loop(f), &b.watch, fd, bell_rings);
	for (unsigned i = 0; i < 5000 && b.calls == 3; i++)
		fiber_sleep_ns(f, NS_PER_MS);
	assert_in_range(b.calls, 4, 5);
	settle(f);
	b.deletes = true;
	ring_and_settle(f, &b, fd);
	sys_close(fd);
}

static void a_bell_calls_for_every_time_it_rings_and_is_not_read(void **state)
{
	assert_int_equal(loop_run_fiber(*state, watch_a_bell, NULL), 0);
}

static void hang_up(struct fiber *f, void *arg)
{
	struct pipe_watch p;

	pipe_open(fiber_loop(f), &p, 0);
	close(p.fds[1]);
	p.fds[1] = -1;
	while (!p.calls)
		settle(f);
	assert_true(p.revents & POLLHUP);
	pipe_close(&p);
}

static void a_hang_up_is_reported(void **state)
{
	assert_int_equal(loop_run_fiber(*state, hang_up, NULL), 0);
}

static void watch_for_urgent_data(struct fiber *f, void *arg)
{
	struct pipe_watch p = {.take = 1};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p.fds), 0);
	loop_watch_add(fiber_loop(f), &p.watch, p.fds[0], POLLIN | POLLPRI, pipe_ready);
	for (unsigned i = 1; i <= 3; i++) {
		settle_at(f, &p, i - 1); /* the loop waits when it comes */
		assert_int_equal(sys_write(p.fds[1], "a", 1), 1);
		settle_at(f, &p, i);
		assert_int_equal(p.revents, POLLIN);
	}
	pipe_close(&p);
}

static void data_is_not_called_urgent_because_it_wakes(void **state)
{
	assert_int_equal(loop_run_fiber(*state, watch_for_urgent_data, NULL), 0);
}

static void reuse_descriptors(struct fiber *f, void *arg)
{
	struct pipe_watch p;

	/* The same numbers again and again, with polls of the last one dying. */
	for (unsigned i = 0; i < 100; i++) {
		pipe_open(fiber_loop(f), &p, 1);
		fiber_yield(f);
		assert_int_equal(sys_write(p.fds[1], "x", 1), 1);
		while (!p.calls)
			fiber_sleep_ns(f, 1000);
		assert_int_equal(p.calls, 1);
		pipe_close(&p);
	}
}

static void descriptors_may_be_closed_and_used_again_at_once(void **state)
{
	assert_int_equal(loop_run_fiber(*state, reuse_descriptors, NULL), 0);
}

/* --- idle hooks ------------------------------------------------------------- */

struct idler {
	struct loop_idle idle;
	unsigned calls;
};

static void count_idle(struct loop_idle *idle)
{
	container_of(idle, struct idler, idle)->calls++;
}

static void sleep_once(struct fiber *f, void *arg)
{
	u64 start = now_ns();

	fiber_sleep_ns(f, NS_PER_MS);
	*(u64 *)arg = now_ns() - start;
}

static void idle_around_sleep(struct fiber *f, void *arg)
{
	struct idler i = {.calls = 0};

	loop_idle_add(fiber_loop(f), &i.idle, count_idle);
	fiber_sleep_ns(f, NS_PER_MS);
	assert_true(i.calls >= 1);
	loop_idle_del(&i.idle);
	i.calls = 0;
	fiber_sleep_ns(f, NS_PER_MS);
	assert_int_equal(i.calls, 0);
}

static void idle_hooks_run_before_the_loop_waits(void **state)
{
	assert_int_equal(loop_run_fiber(*state, idle_around_sleep, NULL), 0);
}

/* --- pool ------------------------------------------------------------------- */

struct pool_user {
	unsigned *running;
	u32 main_thread;
	int n;
};

static int compute(void *arg)
{
	struct pool_user *u = arg;

	assert_true(thread_id() != u->main_thread);
	usleep(500);
	return -u->n;
}

static void call_pool(struct fiber *f, void *arg)
{
	struct pool_user *u = arg;

	assert_int_equal(pool_call(f, compute, u), -u->n);
	--*u->running;
}

static void call_pool_often(struct fiber *f, void *arg)
{
	struct pool_user u[50];
	unsigned running = ARRAY_LEN(u);

	for (int i = 0; i < 50; i++) {
		u[i] = (struct pool_user){&running, thread_id(), i};
		assert_int_equal(fiber_spawn(fiber_loop(f), call_pool, &u[i]), 0);
	}
	while (running)
		fiber_sleep_ns(f, NS_PER_MS);
}

static void pool_calls_run_elsewhere_and_bring_their_result_back(void **state)
{
	assert_int_equal(loop_run_fiber(*state, call_pool_often, NULL), 0);
}

/* --- files ------------------------------------------------------------------ */

static void files_are_read_whole_or_refused(void **state)
{
	char name[] = "/tmp/test_loop_XXXXXX";
	int fd = mkstemp(name);
	struct error err;
	u64 bytes;
	u8 *data;

	assert_int_equal(sys_write_all(fd, "hello", 5), 0);
	close(fd);
	assert_int_equal(sys_read_file(name, 5, &data, &bytes, &err), 0);
	assert_int_equal(bytes, 5);
	assert_string_equal((char *)data, "hello");
	free(data);
	assert_int_equal(sys_read_file(name, 4, &data, &bytes, &err), -EFBIG);
	unlink(name);
	assert_int_equal(sys_read_file(name, 5, &data, &bytes, &err), -ENOENT);
	assert_non_null(strstr(err.text, name));
	assert_int_equal(sys_read_file("/proc/self/status", MiB, &data, &bytes, &err), 0);
	assert_memory_equal(data, "Name:", 5);
	free(data);
}

static void the_environment_chooses_the_backend(void **state)
{
	struct loop *loop;
	struct error err;

	setenv("COWVM_IO", "threads", 1);
	assert_int_equal(loop_new(&loop, "env", LOOP_AUTO, &err), 0);
	assert_int_equal(loop_backend(loop), LOOP_THREADS);
	loop_free(loop);
	setenv("COWVM_IO", "carrier pigeons", 1);
	assert_int_equal(loop_new(&loop, "env", LOOP_AUTO, &err), -EINVAL);
	assert_non_null(strstr(err.text, "carrier pigeons"));
	unsetenv("COWVM_IO");
}

/* --- a host that forbids io_uring ------------------------------------------- */

static int forbid_io_uring(void)
{
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_LEN(rules), .filter = rules};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* In a child, because the rule cannot be taken back: 0, or which step failed. */
static int use_forbidden_ring(void)
{
	struct loop *loop;
	struct error err;
	u64 took = 0;

	if (forbid_io_uring())
		return 1;
	if (loop_new(&loop, "ring", LOOP_URING, &err) != -EPERM || !strstr(err.text, "io_uring"))
		return 2;
	unsetenv("COWVM_IO");
	if (loop_new(&loop, "auto", LOOP_AUTO, &err) < 0)
		return 3;
	if (loop_backend(loop) != LOOP_THREADS)
		return 4;
	if (loop_run_fiber(loop, sleep_once, &took) < 0 || took < NS_PER_MS)
		return 5;
	loop_free(loop);
	return 0;
}

static void threads_step_in_where_the_host_forbids_io_uring(void **state)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(use_forbidden_ring());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define TESTS(X)                                                                                   \
	X(timers_fire_in_order_of_time_and_deleted_ones_never), X(a_timer_may_arm_itself_again),   \
		X(posts_of_several_threads_arrive_once_and_in_order),                              \
		X(call_wait_runs_on_the_loops_thread_and_waits),                                   \
		X(a_stop_before_the_run_is_not_lost),                                              \
		X(a_watch_calls_while_there_is_something_and_can_be_paused),                       \
		X(a_deleted_watch_is_not_called_even_if_it_was_ready), X(a_hang_up_is_reported),   \
		X(a_bell_calls_for_every_time_it_rings_and_is_not_read),                           \
		X(data_is_not_called_urgent_because_it_wakes),                                     \
		X(descriptors_may_be_closed_and_used_again_at_once),                               \
		X(idle_hooks_run_before_the_loop_waits),                                           \
		X(pool_calls_run_elsewhere_and_bring_their_result_back),                           \
		X(files_are_read_whole_or_refused),                                                \
		X(threads_step_in_where_the_host_forbids_io_uring),                                \
		X(the_environment_chooses_the_backend)

int main(void)
{
	return RUN_ON_BACKENDS(TESTS);
}
