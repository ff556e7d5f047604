/* Images that a server of the network block device protocol offers, over libnbd (lib.h).
 *
 * Names: nbd://host:port/export, nbd+tcp://..., nbd+unix:///export?socket=PATH,
 * nbd:host:port[:exportname=X], nbd:unix:PATH[:exportname=X]; options: host, port,
 * path, export, or the same under "server.".  Connecting and leaving run on a pool
 * thread; requests are libnbd's asynchronous ones, driven by a watch of the loop.
 * Bytes beyond the export's end, up to a whole sector, read as zeros.
 * Thread: the image's loop. */
#define _GNU_SOURCE
#include "block/driver.h"
#include "block/graph.h"

#include "base/io.h"
#include "base/loop.h"
#include "base/opts.h"
#include "base/pool.h"
#include "block/nbd/lib.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

#define MOST_BYTES ((u64)32 * MiB)   /* of data in a request */
#define MOST_RANGE ((u64)1024 * MiB) /* of the others */
#define EXTENTS	   512		     /* remembered of the last answer about holes */

/* A connection, and the library that makes it. */
struct link {
	struct nbd_lib lib; /* [const] */
	struct nbd_handle *h;
};

struct nbd {
	struct image img;
	struct link link;
	u64 export_bytes;
	u64 most_bytes;
	struct loop_watch watch;
	bool discard, can_map, can_zero, can_fast_zero, can_trim, can_flush;
	/* What the server last said about holes; forgotten at every change. */
	u64 map_goff;
	u32 map_n, map_entries[2 * EXTENTS];
	u64 changes;
};

static struct nbd *nbd_of(struct image *img)
{
	return container_of(img, struct nbd, img);
}

/* --- connecting -------------------------------------------------------------------- */

/* Where to; strings are lent. */
struct target {
	struct link link;
	const char *uri, *host, *port, *path, *export;
	struct error *err;
};

static int connect_call(void *arg)
{
	struct target *t = arg;
	const char *text;
	int ret;

	if (t->link.lib.add_meta_context(t->link.h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
	    t->link.lib.set_uri_allow_tls(t->link.h, LIBNBD_TLS_DISABLE) < 0 ||
	    (t->export && t->link.lib.set_export_name(t->link.h, t->export) < 0))
		ret = -1;
	else if (t->uri)
		ret = t->link.lib.connect_uri(t->link.h, t->uri);
	else if (t->path)
		ret = t->link.lib.connect_unix(t->link.h, t->path);
	else
		ret = t->link.lib.connect_tcp(t->link.h, t->host, t->port);
	if (ret == 0)
		return 0;
	ret = t->link.lib.get_errno() > 0 ? -t->link.lib.get_errno() : -EIO;
	text = t->link.lib.get_error();
	return err_set(t->err, ret, "%s", text ? text : "cannot connect");
}

static int leave_call(void *arg)
{
	struct link *l = arg;

	if (l->lib.aio_is_ready(l->h) > 0)
		(void)l->lib.shutdown(l->h, 0);
	l->lib.close(l->h);
	return 0;
}

/* "nbd:unix:PATH:exportname=X" and "nbd:HOST:PORT:exportname=X"; cuts `text`. */
static int parse_old_name(char *text, struct target *t, struct error *err)
{
	char *end = strstr(text, ":exportname=");
	char *colon;

	if (end) {
		*end = 0;
		t->export = end + strlen(":exportname=");
	}
	if (!strncmp(text, "unix:", 5)) {
		t->path = text + 5;
		return 0;
	}
	colon = strrchr(text, ':');
	if (!colon || !colon[1])
		return err_set(err, -EINVAL, "nbd: a host and a port are expected in '%s'", text);
	*colon = 0;
	t->host = text;
	t->port = colon + 1;
	return 0;
}

static const char *option(const struct opts *o, const char *name)
{
	char full[32];
	const char *value = opts_get(o, name);

	snprintf(full, sizeof(full), "server.%s", name);
	return value ? value : opts_get(o, full);
}

static int parse_options(const struct opts *o, struct target *t, struct error *err)
{
	t->path = option(o, "path");
	t->host = option(o, "host");
	t->port = option(o, "port");
	t->export = opts_get(o, "export");
	if (t->path && t->host)
		return err_set(err, -EINVAL, "path and host may not be used at the same time");
	if (!t->path && !t->host)
		return err_set(err, -EINVAL, "NBD server address missing");
	if (!t->port)
		t->port = "10809";
	return 0;
}

/* `text`: room that the target lies in, free() it. */
static int parse_target(const char *name, const struct opts *o, struct target *t, char **text,
			struct error *err)
{
	*text = NULL;
	if (!name)
		return parse_options(o, t, err);
	if (!strncmp(name, "nbd+tcp:", 8))
		*text = xasprintf("nbd%s", name + 7);
	else
		*text = xstrdup(name);
	t->uri = *text;
	if (strncmp(*text, "nbd:", 4) || !strncmp(*text, "nbd://", 6))
		return 0;
	t->uri = NULL;
	return parse_old_name(*text + 4, t, err);
}

/* --- requests ---------------------------------------------------------------------- */

struct call {
	struct nbd *nbd;
	struct fiber_queue wait;
	bool done;
	int error;
};

static void update_watch(struct nbd *nbd)
{
	unsigned direction = nbd->link.lib.aio_get_direction(nbd->link.h);
	u32 events = 0;

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		events |= POLLOUT;
	if (nbd->link.lib.aio_is_dead(nbd->link.h) || nbd->link.lib.aio_is_closed(nbd->link.h))
		events = 0;
	loop_watch_set(&nbd->watch, events);
}

static void socket_ready(struct loop_watch *watch, u32 revents)
{
	struct nbd *nbd = container_of(watch, struct nbd, watch);
	unsigned direction = nbd->link.lib.aio_get_direction(nbd->link.h);

	/* One at a time: a step may close the socket. */
	if (revents & (POLLIN | POLLHUP | POLLERR) && direction & LIBNBD_AIO_DIRECTION_READ)
		(void)nbd->link.lib.aio_notify_read(nbd->link.h);
	else if (revents & (POLLOUT | POLLHUP | POLLERR) && direction & LIBNBD_AIO_DIRECTION_WRITE)
		(void)nbd->link.lib.aio_notify_write(nbd->link.h);
	update_watch(nbd);
}

/* 1: libnbd may forget the request. */
static int call_done(void *arg, int *error)
{
	struct call *c = arg;

	c->done = true;
	c->error = *error > 0 ? -*error : 0;
	fiber_queue_wake_all(&c->wait);
	return 1;
}

static void call_init(struct call *c, struct nbd *nbd)
{
	*c = (struct call){.nbd = nbd};
	fiber_queue_init(&c->wait);
}

#define ON_DONE(call) ((nbd_completion_callback){.callback = call_done, .user_data = (call)})

/* Wait for what was started; cookie < 0: it was not. */
static int call_wait(struct fiber *f, struct call *c, s64 cookie)
{
	int error = c->nbd->link.lib.get_errno();

	update_watch(c->nbd);
	if (cookie < 0)
		return error > 0 ? -error : -EIO;
	while (!c->done)
		fiber_queue_wait(f, &c->wait);
	return c->error == -ESHUTDOWN ? -EIO : c->error;
}

static int read_part(struct fiber *f, struct nbd *nbd, u64 goff, void *buf, u64 bytes)
{
	struct call c;

	call_init(&c, nbd);
	return call_wait(f, &c,
			 nbd->link.lib.aio_pread(nbd->link.h, buf, bytes, goff, ON_DONE(&c), 0));
}

static int write_part(struct fiber *f, struct nbd *nbd, u64 goff, void *buf, u64 bytes)
{
	struct call c;

	call_init(&c, nbd);
	return call_wait(f, &c,
			 nbd->link.lib.aio_pwrite(nbd->link.h, buf, bytes, goff, ON_DONE(&c), 0));
}

typedef int part_fn(struct fiber *f, struct nbd *nbd, u64 goff, void *buf, u64 bytes);

static int each_part(struct fiber *f, struct nbd *nbd, part_fn *fn, u64 goff, struct iovec data)
{
	int ret = 0;

	for (u64 at = 0, part; at < data.iov_len && ret == 0; at += part) {
		part = MIN(data.iov_len - at, nbd->most_bytes);
		ret = fn(f, nbd, goff + at, (char *)data.iov_base + at, part);
	}
	return ret;
}

/* What of the request the export has. */
static u64 inside(const struct nbd *nbd, u64 goff, u64 bytes)
{
	return goff >= nbd->export_bytes ? 0 : MIN(bytes, nbd->export_bytes - goff);
}

static int nbd_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		    unsigned n)
{
	struct nbd *nbd = nbd_of(img);
	u64 all = iov_bytes(iov, n), bytes = inside(nbd, goff, all);
	AUTO_FREE u8 *bounce = NULL;
	struct iovec data = {iov->iov_base, bytes};
	int ret;

	if (n > 1) {
		data.iov_base = bounce = try_alloc(MAX(bytes, (u64)1));
		if (!bounce)
			return -ENOMEM;
	}
	ret = each_part(f, nbd, read_part, goff, data);
	if (ret == 0 && bounce)
		iov_copy_to(iov, n, 0, bounce, bytes);
	if (ret == 0)
		iov_zero(iov, n, bytes, all - bytes);
	return ret;
}

static int nbd_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		     unsigned n)
{
	struct nbd *nbd = nbd_of(img);
	struct iovec data = {iov->iov_base, inside(nbd, goff, iov_bytes(iov, n))};
	AUTO_FREE u8 *bounce = NULL;
	int ret;

	if (n > 1) {
		data.iov_base = bounce = try_alloc(MAX(data.iov_len, (size_t)1));
		if (!bounce)
			return -ENOMEM;
		iov_copy_from(iov, n, 0, bounce, data.iov_len);
	}
	nbd->changes++;
	nbd->map_n = 0;
	ret = each_part(f, nbd, write_part, goff, data);
	nbd->changes++;
	nbd->map_n = 0;
	return ret;
}

static int nbd_zero_range(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	struct nbd *nbd = nbd_of(img);
	u32 wire = flags & ZERO_MAY_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
	int ret = 0;

	if (!nbd->can_zero || (flags & ZERO_NO_FALLBACK && !nbd->can_fast_zero))
		return -ENOTSUP;
	if (flags & ZERO_NO_FALLBACK)
		wire |= LIBNBD_CMD_FLAG_FAST_ZERO;
	bytes = inside(nbd, goff, bytes);
	nbd->changes++;
	for (u64 part; bytes && ret == 0; goff += part, bytes -= part) {
		struct call c;

		part = MIN(bytes, MOST_RANGE);
		call_init(&c, nbd);
		ret = call_wait(f, &c,
				nbd->link.lib.aio_zero(nbd->link.h, part, goff, ON_DONE(&c), wire));
	}
	nbd->changes++;
	nbd->map_n = 0;
	return ret == -EOPNOTSUPP ? -ENOTSUP : ret;
}

static int nbd_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	struct nbd *nbd = nbd_of(img);
	int ret = 0;

	if (!nbd->can_trim || !nbd->discard)
		return 0;
	bytes = inside(nbd, goff, bytes);
	nbd->changes++;
	for (u64 part; bytes && ret == 0; goff += part, bytes -= part) {
		struct call c;

		part = MIN(bytes, MOST_RANGE);
		call_init(&c, nbd);
		ret = call_wait(f, &c,
				nbd->link.lib.aio_trim(nbd->link.h, part, goff, ON_DONE(&c), 0));
	}
	nbd->changes++;
	nbd->map_n = 0;
	return ret == -ENOTSUP ? 0 : ret; /* a hint only */
}

static int nbd_flush_all(struct fiber *f, struct image *img)
{
	struct nbd *nbd = nbd_of(img);
	struct call c;

	if (!nbd->can_flush)
		return 0;
	call_init(&c, nbd);
	return call_wait(f, &c, nbd->link.lib.aio_flush(nbd->link.h, ON_DONE(&c), 0));
}

/* --- holes ------------------------------------------------------------------------- */

/* An answer on its way; given up when something changes meanwhile. */
struct status {
	struct nbd *nbd;
	u64 goff, changes;
	u32 n, entries[2 * EXTENTS];
};

static int take_status(void *arg, const char *context, u64 goff, u32 *entries, size_t n, int *error)
{
	struct status *s = arg;

	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) || goff != s->goff)
		return 0;
	s->n = (u32)MIN(n / 2, (size_t)EXTENTS);
	memcpy(s->entries, entries, s->n * 2 * sizeof(*entries));
	return 0;
}

static bool answer_from(const u32 *entries, u32 n, u64 start, u64 goff, struct map_extent *out)
{
	for (u32 i = 0; i < n; start += entries[2 * i++]) {
		u32 flags = entries[2 * i + 1];

		if (goff < start || goff - start >= entries[2 * i])
			continue;
		out->bytes = MIN(out->bytes, start + entries[2 * i] - goff);
		out->kind =
			MAP_ALLOC | MAP_HOFF | (flags & LIBNBD_STATE_ZERO ? MAP_ZERO : MAP_DATA);
		return true;
	}
	return false;
}

static int ask(struct fiber *f, struct nbd *nbd, u64 goff, u64 bytes, struct map_extent *out)
{
	AUTO_FREE struct status *s = try_alloc(sizeof(*s));
	struct call c;
	int ret;

	if (!s)
		return -ENOMEM;
	s->goff = goff;
	s->changes = nbd->changes;
	call_init(&c, nbd);
	ret = call_wait(f, &c,
			nbd->link.lib.aio_block_status(
				nbd->link.h, MIN(bytes, MOST_RANGE), goff,
				(nbd_extent_callback){.callback = take_status, .user_data = s},
				ON_DONE(&c), 0));
	if (ret < 0 || !answer_from(s->entries, s->n, goff, goff, out))
		return 0; /* it may be data: as it was set before */
	if (s->changes == nbd->changes) {
		nbd->map_goff = goff;
		nbd->map_n = s->n;
		memcpy(nbd->map_entries, s->entries, sizeof(s->entries));
	}
	return 0;
}

static int nbd_map(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out)
{
	struct nbd *nbd = nbd_of(img);
	u64 have = inside(nbd, goff, bytes);

	*out = (struct map_extent){.bytes = have ? have : bytes,
				   .hoff = goff,
				   .kind = MAP_ALLOC | MAP_HOFF | (have ? MAP_DATA : MAP_ZERO)};
	out->file = img;
	if (!have || !nbd->can_map ||
	    answer_from(nbd->map_entries, nbd->map_n, nbd->map_goff, goff, out))
		return 0;
	return ask(f, nbd, goff, have, out);
}

/* --- life cycle ---------------------------------------------------------------------- */

static int nbd_leave(struct fiber *f, struct image *img)
{
	struct nbd *nbd = nbd_of(img);

	loop_watch_del(&nbd->watch);
	return pool_call(f, leave_call, &nbd->link);
}

static int check_writable(const struct link *link, struct error *err)
{
	return link->lib.is_read_only(link->h)
		       ? err_set(err, -EACCES, "request for write access denied")
		       : 0;
}

static int begin_writing(struct fiber *f, struct image *img, struct error *err)
{
	return check_writable(&nbd_of(img)->link, err);
}

static const struct image_graph_ops nbd_graph = {.begin_writing = begin_writing};

static const struct image_driver nbd_driver = {
	.name = "nbd",
	.state_size = sizeof(struct nbd),
	.read = nbd_read,
	.write = nbd_write,
	.zero = nbd_zero_range,
	.discard = nbd_discard,
	.flush = nbd_flush_all,
	.map = nbd_map,
	.close = nbd_leave,
	.graph = &nbd_graph,
};

static void take_properties(struct nbd *nbd, const struct open_policy *policy, s64 bytes)
{
	s64 most = nbd->link.lib.get_block_size(nbd->link.h, LIBNBD_SIZE_MAXIMUM);

	nbd->export_bytes = (u64)bytes;
	nbd->img.bytes = align_up((u64)bytes, 512);
	nbd->img.writable = policy->writable;
	nbd->most_bytes = most >= 512 ? MIN((u64)most, MOST_BYTES) : MOST_BYTES;
	nbd->discard = policy->discard;
	nbd->can_map =
		nbd->link.lib.can_meta_context(nbd->link.h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	nbd->can_zero = nbd->link.lib.can_zero(nbd->link.h) > 0;
	nbd->can_fast_zero = nbd->link.lib.can_fast_zero(nbd->link.h) > 0;
	nbd->can_trim = nbd->link.lib.can_trim(nbd->link.h) > 0;
	nbd->can_flush = nbd->link.lib.can_flush(nbd->link.h) > 0;
}

static int from_handle(struct fiber *f, struct image **out, const struct link *link,
		       const char *name, const struct open_policy *policy, struct error *err)
{
	s64 bytes = link->lib.get_size(link->h);
	struct nbd *nbd;
	struct image *img;

	if (bytes < 0 || bytes > INT64_MAX - 512)
		return err_set(err, -EFBIG, "NBD export is too large");
	if (policy->writable && check_writable(link, err) < 0)
		return -EACCES;
	img = image_new(&nbd_driver, fiber_loop(f), name);
	nbd = nbd_of(img);
	nbd->link = *link;
	take_properties(nbd, policy, bytes);
	loop_watch_add(fiber_loop(f), &nbd->watch, link->lib.aio_get_fd(link->h), 0, socket_ready);
	update_watch(nbd);
	*out = img;
	return 0;
}

static char *show_name(const char *name, const struct target *t)
{
	if (name)
		return xstrdup(name);
	if (t->path)
		return xasprintf("nbd+unix:///%s?socket=%s", t->export ? t->export : "", t->path);
	return xasprintf("nbd://%s:%s%s%s", t->host, t->port, t->export ? "/" : "",
			 t->export ? t->export : "");
}

static int nbd_open(struct fiber *f, struct image **out, const char *name,
		    const struct open_policy *policy, struct error *err)
{
	struct target t = {.err = err};
	AUTO_FREE char *text = NULL, *shown = NULL;
	int ret = parse_target(name, policy->options, &t, &text, err);

	if (ret < 0)
		return ret;
	ret = nbd_lib_load(&t.link.lib, err);
	if (ret < 0)
		return ret;
	shown = show_name(name, &t);
	t.link.h = t.link.lib.create();
	if (!t.link.h)
		return err_set(err, -ENOMEM, "%s", t.link.lib.get_error());
	ret = pool_call(f, connect_call, &t);
	if (ret == 0)
		ret = from_handle(f, out, &t.link, shown, policy, err);
	if (ret < 0)
		(void)pool_call(f, leave_call, &t.link);
	return ret;
}

#define OPTIONS "filename host port path export server. reconnect-delay open-timeout"

const struct image_protocol nbd_protocol = {"nbd", OPTIONS, nbd_open};
const struct image_protocol nbd_tcp_protocol = {"nbd+tcp", OPTIONS, nbd_open};
const struct image_protocol nbd_unix_protocol = {"nbd+unix", OPTIONS, nbd_open};
