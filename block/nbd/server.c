/* An image as an NBD export: clients come, are served, and leave.
 *
 * Protocol: doc/proto.md of the NBD project.  Connections share the image and its
 * loop.  At the end nothing more is received, what is in flight is finished and
 * answered, and the image flushed; a client that does not take its answers is cut
 * after GRACE_NS.  Thread: the image's loop. */
#define _GNU_SOURCE
#include "block/nbd/server_int.h"

#include "base/io.h"
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#define HANDSHAKE_NS (30 * (u64)NS_PER_SEC)
#define GRACE_NS     (5 * (u64)NS_PER_SEC)

static bool takes_clients(const struct nbd_server *s)
{
	return !s->stopping && (!s->export->max_clients || s->n_conns < s->export->max_clients);
}

static void watch_listener(struct nbd_server *s)
{
	loop_watch_set(&s->listen, takes_clients(s) ? POLLIN : 0);
}

static void begin_stop(struct nbd_server *s)
{
	if (s->stopping)
		return;
	s->stopping = true;
	watch_listener(s);
	list_for_each (pos, &s->conns)
		sock_stop_receiving(&list_entry(pos, struct nbd_conn, link)->sock);
	loop_timer_set(&s->grace, now_ns() + GRACE_NS);
	fiber_queue_wake_all(&s->ended);
}

static void grace_over(struct loop_timer *timer)
{
	struct nbd_server *s = container_of(timer, struct nbd_server, grace);

	list_for_each (pos, &s->conns)
		sock_cut(&list_entry(pos, struct nbd_conn, link)->sock);
}

static void conn_free(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;

	sock_fini(&c->sock);
	list_del(&c->link);
	free(c);
	s->n_conns--;
	if (!s->n_conns && !s->export->persistent)
		begin_stop(s);
	watch_listener(s);
	fiber_queue_wake_all(&s->ended);
}

static void conn_run(struct fiber *f, void *arg)
{
	struct nbd_conn *c = arg;
	int ret;

	sock_set_deadline(&c->sock, now_ns() + HANDSHAKE_NS);
	ret = nbd_handshake(f, c);
	sock_set_deadline(&c->sock, 0);
	if (ret == 0)
		nbd_transmission(f, c);
	while (c->in_flight)
		fiber_queue_wait(f, &c->room);
	conn_free(c);
}

static int conn_new(struct nbd_server *s, int fd)
{
	struct nbd_conn *c = xnew(struct nbd_conn);
	int one = 1;

	c->server = s;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* unix: refused */
	sock_init(&c->sock, s->loop, fd);
	fiber_queue_init(&c->room);
	fiber_mutex_init(&c->send_lock);
	list_append(&s->conns, &c->link);
	s->n_conns++;
	if (fiber_spawn(s->loop, conn_run, c) < 0) {
		conn_free(c);
		return -ENOMEM;
	}
	return 0;
}

static void accept_clients(struct loop_watch *watch, u32 revents)
{
	struct nbd_server *s = container_of(watch, struct nbd_server, listen);

	while (takes_clients(s)) {
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			break; /* nobody any more, or one who left again */
		(void)conn_new(s, fd);
	}
	watch_listener(s);
}

static void stop_asked(struct loop_watch *watch, u32 revents)
{
	loop_watch_set(watch, 0);
	begin_stop(container_of(watch, struct nbd_server, stop));
}

int nbd_serve(struct fiber *f, const struct nbd_export *e, int listen_fd, int stop_fd)
{
	struct nbd_server *s = xnew(struct nbd_server);
	struct list *item;
	int ret;

	assert(strlen(e->name) <= NBD_MAX_NAME);
	s->export = e;
	s->loop = fiber_loop(f);
	s->listen_fd = listen_fd;
	list_init(&s->conns);
	list_init(&s->free_requests);
	fiber_queue_init(&s->memory);
	fiber_queue_init(&s->ended);
	loop_timer_init(s->loop, &s->grace, grace_over);
	loop_watch_add(s->loop, &s->listen, listen_fd, POLLIN, accept_clients);
	loop_watch_add(s->loop, &s->stop, stop_fd, POLLIN, stop_asked);
	while (!s->stopping || s->n_conns)
		fiber_queue_wait(f, &s->ended);
	loop_watch_del(&s->stop);
	loop_watch_del(&s->listen);
	loop_timer_del(&s->grace);
	ret = image_flush(f, e->img);
	while ((item = list_pop(&s->free_requests)))
		nbd_request_free(list_entry(item, struct nbd_request, link));
	free(s);
	return ret;
}
