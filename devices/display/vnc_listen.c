/* Sockets that VNC clients connect to: TCP on one of a range of ports, another port for
 * WebSocket, or a unix socket.  Thread: main. */
#define _GNU_SOURCE
#include "devices/display/vnc_int.h"

#include "base/io.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 8

static void connected(struct loop_watch *watch, u32 revents)
{
	struct vnc_listener *l = container_of(watch, struct vnc_listener, watch);
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		vnc_connected(l->vnc, fd);
}

static void add_listener(struct vnc *v, int fd, const char *text, bool websocket)
{
	struct vnc_listener *l = &v->listeners[v->n_listeners++];

	assert(v->n_listeners <= VNC_MAX_LISTENERS);
	l->vnc = v;
	l->websocket = websocket;
	snprintf(l->text, sizeof(l->text), "%s", text);
	loop_watch_add(v->main, &l->watch, fd, POLLIN, connected);
}

static int bind_and_listen(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1, ret;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

/* Every address of the host, at this port; how many listen, or why none does. */
static int listen_at(struct vnc *v, const struct addrinfo *list, u32 port, bool websocket)
{
	int made = 0, failed = 0;

	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		char host[NI_MAXHOST] = "", text[NI_MAXHOST + 32];
		int fd;

		if (v->n_listeners == VNC_MAX_LISTENERS)
			break;
		/* The port is at the same place in both kinds of address. */
		((struct sockaddr_in *)ai->ai_addr)->sin_port = htons((u16)port);
		fd = bind_and_listen(ai);
		if (fd < 0) {
			failed = failed ? failed : fd;
			continue;
		}
		getnameinfo(ai->ai_addr, ai->ai_addrlen, host, sizeof(host), NULL, 0,
			    NI_NUMERICHOST);
		snprintf(text, sizeof(text), "%s:%u (%s)", host, port,
			 ai->ai_family == AF_INET6 ? "ipv6" : "ipv4");
		add_listener(v, fd, text, websocket);
		made++;
	}
	return made ? made : failed;
}

static int listen_tcp(struct vnc *v, const struct vnc_options *opt, const char *host, u32 first,
		      u32 last, struct error *err)
{
	struct addrinfo hints = {.ai_family = opt->no_ipv6   ? AF_INET
					      : opt->no_ipv4 ? AF_INET6
							     : AF_UNSPEC,
				 .ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_PASSIVE};
	const char *here = opt->no_ipv4 ? "::1" : "127.0.0.1";
	bool websocket = v->n_listeners > 0;
	struct addrinfo *list;
	int ret = getaddrinfo(host ? host : here, "0", &hints, &list);

	if (ret)
		return err_set(err, -ENOENT, "address resolution failed for %s:%u: %s",
			       host ? host : here, first, gai_strerror(ret));
	do {
		ret = listen_at(v, list, first, websocket);
	} while (ret == -EADDRINUSE && first++ < last);
	freeaddrinfo(list);
	if (ret < 0)
		return err_set_errno(err, ret, "Failed to bind socket");
	return 0;
}

static int listen_unix(struct vnc *v, const char *path, struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char text[160];
	int fd, ret;

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG, "UNIX socket path '%s' is too long", path);
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set_errno(err, -errno, "Failed to create Unix socket");
	unlink(path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, BACKLOG) < 0) {
		ret = -errno;
		close(fd);
		return err_set_errno(err, ret, "Failed to bind socket to %s", path);
	}
	v->path = xstrdup(path);
	snprintf(text, sizeof(text), "%s (unix)", path);
	add_listener(v, fd, text, false);
	return 0;
}

int vnc_listen(struct vnc *v, const struct vnc_options *opt, struct error *err)
{
	int ret = opt->path ? listen_unix(v, opt->path, err)
			    : listen_tcp(v, opt, opt->host, opt->port, opt->port_last, err);

	if (ret == 0 && opt->ws_port)
		ret = listen_tcp(v, opt, opt->ws_host ? opt->ws_host : opt->host, opt->ws_port,
				 opt->ws_port, err);
	if (ret < 0)
		vnc_unlisten(v);
	return ret;
}

void vnc_unlisten(struct vnc *v)
{
	while (v->n_listeners) {
		struct loop_watch *watch = &v->listeners[--v->n_listeners].watch;
		int fd = watch->fd;

		loop_watch_del(watch);
		sys_close(fd);
	}
	if (v->path)
		unlink(v->path);
	free(v->path);
	v->path = NULL;
}
