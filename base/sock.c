/* Stream sockets for fibers; see sock.h.
 *
 * A transfer is tried at once; only when the host would block is the descriptor
 * watched, for what the suspended fibers wait for.  Thread: the loop's. */
#define _GNU_SOURCE
#include "base/sock.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>

static void watch_waiters(struct sock *s)
{
	u32 events = 0;

	if (!list_empty(&s->receiver.waiters))
		events |= POLLIN;
	if (!list_empty(&s->sender.waiters))
		events |= POLLOUT;
	loop_watch_set(&s->watch, events);
}

static void ready(struct loop_watch *watch, u32 revents)
{
	struct sock *s = container_of(watch, struct sock, watch);
	bool gone = revents & (POLLERR | POLLHUP);

	if (revents & POLLIN || gone)
		fiber_queue_wake_all(&s->receiver);
	if (revents & POLLOUT || gone)
		fiber_queue_wake_all(&s->sender);
	watch_waiters(s);
}

static void wait_in(struct fiber *f, struct sock *s, struct fiber_queue *q, u32 event)
{
	loop_watch_set(&s->watch, s->watch.events | event);
	fiber_queue_wait(f, q);
}

static void timed_out(struct loop_timer *timer)
{
	sock_cut(container_of(timer, struct sock, timer));
}

void sock_init(struct sock *s, struct loop *loop, int fd)
{
	*s = (struct sock){.fd = fd};
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	fiber_queue_init(&s->receiver);
	fiber_queue_init(&s->sender);
	loop_watch_add(loop, &s->watch, fd, 0, ready);
	loop_timer_init(loop, &s->timer, timed_out);
}

void sock_fini(struct sock *s)
{
	assert(list_empty(&s->receiver.waiters) && list_empty(&s->sender.waiters));
	loop_timer_del(&s->timer);
	loop_watch_del(&s->watch);
	sys_close(s->fd);
	s->fd = -1;
}

int sock_recv(struct fiber *f, struct sock *s, void *buf, size_t bytes)
{
	while (bytes) {
		ssize_t n = recv(s->fd, buf, bytes, MSG_DONTWAIT);

		if (n > 0) {
			buf = (char *)buf + n;
			bytes -= (size_t)n;
		} else if (!n) {
			return -ECONNRESET;
		} else if (errno == EAGAIN) {
			wait_in(f, s, &s->receiver, POLLIN);
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* What is left of the vector after `done` bytes, in a message of a few entries. */
static unsigned rest(struct iovec *to, unsigned room, const struct iovec *iov, unsigned n, u64 done)
{
	unsigned used = 0;

	for (unsigned i = 0; i < n && used < room; i++) {
		if (done >= iov[i].iov_len) {
			done -= iov[i].iov_len;
			continue;
		}
		to[used].iov_base = (char *)iov[i].iov_base + done;
		to[used++].iov_len = iov[i].iov_len - done;
		done = 0;
	}
	return used;
}

int sock_send(struct fiber *f, struct sock *s, const struct iovec *iov, unsigned n)
{
	u64 bytes = iov_bytes(iov, n), done = 0;

	while (done < bytes) {
		struct iovec part[8];
		struct msghdr msg = {.msg_iov = part,
				     .msg_iovlen = rest(part, ARRAY_LEN(part), iov, n, done)};
		ssize_t sent = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent >= 0)
			done += (u64)sent;
		else if (errno == EAGAIN)
			wait_in(f, s, &s->sender, POLLOUT);
		else if (errno != EINTR)
			return -errno;
	}
	return 0;
}

void sock_wait_readable(struct fiber *f, struct sock *s)
{
	u8 byte;

	while (recv(s->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN)
		wait_in(f, s, &s->receiver, POLLIN);
}

void sock_set_deadline(struct sock *s, u64 due_ns)
{
	if (due_ns)
		loop_timer_set(&s->timer, due_ns);
	else
		loop_timer_del(&s->timer);
}

void sock_stop_receiving(struct sock *s)
{
	(void)shutdown(s->fd, SHUT_RD);
}

void sock_cut(struct sock *s)
{
	(void)shutdown(s->fd, SHUT_RDWR);
}
