/* The transmission phase of a server: requests, each on a fiber of its own.
 *
 * doc/proto.md of the NBD project, "Transmission", "Structured reply chunk".
 * Replies go out in whatever order requests end.  A flush covers all writes that
 * any connection had answered, as all of them use one image: NBD_FLAG_CAN_MULTI_CONN.
 * Bounded: requests in flight of a connection, bytes of all buffers together.
 * Thread: the image's loop. */
#include "block/nbd/server_int.h"

#include "base/thread.h"
#include "block/map_chain.h"

#include <errno.h>

#define STATUS_MOST	   1024	      /* extents in an answer */
#define MAP_LEAST	   (32 * KiB) /* smaller reads of raw images are not worth the question */
#define PAYLOAD_TIMEOUT_NS (60 * (u64)NS_PER_SEC)
#define ALLOCATION_CONTEXT 1u

static u32 wire_error(int ret)
{
	switch (-ret) {
	case EPERM:
	case EROFS:
	case EACCES: return EPERM;
	case ENOMEM:
	case EINVAL:
	case ENOSPC:
	case EOVERFLOW: return (u32)-ret;
	case EDQUOT:
	case EFBIG: return ENOSPC;
	case ENOTSUP: return 95;
	default: return EIO;
	}
}

/* --- replies --------------------------------------------------------------------- */

static void send_all(struct fiber *f, struct nbd_conn *c, const struct iovec *iov, unsigned n)
{
	if (c->broken)
		return;
	if (sock_send(f, &c->sock, iov, n) < 0) {
		c->broken = true;
		sock_cut(&c->sock); /* the reader is to learn of it */
	}
}

static void send_simple(struct fiber *f, const struct nbd_request *r, int ret, u32 bytes)
{
	u8 head[16];
	struct iovec iov[] = {{head, sizeof(head)}, {r->buf, bytes}};

	store_be32(head, NBD_SIMPLE_MAGIC);
	store_be32(head + 4, ret < 0 ? wire_error(ret) : 0);
	store_be64(head + 8, r->cookie);
	fiber_mutex_lock(f, &r->conn->send_lock);
	send_all(f, r->conn, iov, ret == 0 && bytes ? 2 : 1);
	fiber_mutex_unlock(f, &r->conn->send_lock);
}

/* One chunk; two parts of payload, the second may be empty. */
static void send_chunk(struct fiber *f, const struct nbd_request *r, u32 type_and_flags,
		       const struct iovec parts[static 2])
{
	u8 head[20];
	struct iovec iov[] = {{head, sizeof(head)}, parts[0], parts[1]};

	store_be32(head, NBD_STRUCTURED_MAGIC);
	store_be16(head + 4, (u16)(type_and_flags >> 16));
	store_be16(head + 6, (u16)type_and_flags);
	store_be64(head + 8, r->cookie);
	store_be32(head + 16, (u32)(parts[0].iov_len + parts[1].iov_len));
	fiber_mutex_lock(f, &r->conn->send_lock);
	send_all(f, r->conn, iov, 3);
	fiber_mutex_unlock(f, &r->conn->send_lock);
}

#define LAST_CHUNK ((u32)NBD_CHUNK_DONE << 16)

static void send_error_chunk(struct fiber *f, const struct nbd_request *r, int ret)
{
	u8 data[6] = {0};
	struct iovec parts[2] = {{data, sizeof(data)}};

	store_be32(data, wire_error(ret));
	send_chunk(f, r, NBD_CHUNK_ERROR | LAST_CHUNK, parts);
}

static void send_end(struct fiber *f, const struct nbd_request *r, int ret)
{
	if (r->conn->structured && ret < 0)
		send_error_chunk(f, r, ret);
	else
		send_simple(f, r, ret, 0);
}

/* --- reading --------------------------------------------------------------------- */

static void send_data(struct fiber *f, const struct nbd_request *r, u32 at, u32 bytes, u32 flags)
{
	u8 place[8];
	struct iovec parts[2] = {{place, sizeof(place)}, {r->buf + at, bytes}};

	store_be64(place, r->goff + at);
	send_chunk(f, r, NBD_CHUNK_DATA | flags, parts);
}

static void send_hole(struct fiber *f, const struct nbd_request *r, u32 at, u32 bytes, u32 flags)
{
	u8 place[12];
	struct iovec parts[2] = {{place, sizeof(place)}};

	store_be64(place, r->goff + at);
	store_be32(place + 8, bytes);
	send_chunk(f, r, NBD_CHUNK_HOLE | flags, parts);
}

/* From `at` on: bytes that are all zeros, or all not. */
static int next_part(struct fiber *f, const struct nbd_request *r, u32 at, u32 *bytes, bool *zero)
{
	struct image *img = r->conn->server->export->img;
	struct chain_extent e;

	*bytes = 0;
	while (at + *bytes < r->bytes) {
		u64 left = r->bytes - at - *bytes;
		int ret = image_map_chain(f, img, r->goff + at + *bytes, left, &e);
		bool is_zero = ret == 0 && e.map.kind & MAP_ZERO;

		if (ret < 0)
			return ret;
		if (*bytes && is_zero != *zero)
			break;
		*zero = is_zero;
		*bytes += (u32)e.map.bytes;
	}
	return 0;
}

static void read_parts(struct fiber *f, struct nbd_request *r)
{
	struct image *img = r->conn->server->export->img;

	for (u32 at = 0, bytes; at < r->bytes; at += bytes) {
		bool zero = false;
		u32 flags;
		int ret = next_part(f, r, at, &bytes, &zero);

		if (ret == 0 && !zero)
			ret = image_pread(f, img, r->goff + at, r->buf + at, bytes);
		if (ret < 0) {
			send_error_chunk(f, r, ret);
			return;
		}
		flags = at + bytes == r->bytes ? LAST_CHUNK : 0;
		if (zero)
			send_hole(f, r, at, bytes, flags);
		else
			send_data(f, r, at, bytes, flags);
	}
}

/* Raw images tell by system calls what is a hole. */
static bool worth_mapping(const struct nbd_request *r)
{
	return !(r->flags & NBD_CMD_DF) &&
	       (r->bytes >= MAP_LEAST || r->conn->server->export->img->backing);
}

static void do_read(struct fiber *f, struct nbd_request *r)
{
	int ret;

	if (r->conn->structured && worth_mapping(r)) {
		read_parts(f, r);
		return;
	}
	ret = image_pread(f, r->conn->server->export->img, r->goff, r->buf, r->bytes);
	if (!r->conn->structured)
		send_simple(f, r, ret, r->bytes);
	else if (ret < 0)
		send_error_chunk(f, r, ret);
	else
		send_data(f, r, 0, r->bytes, LAST_CHUNK);
}

/* --- block status ---------------------------------------------------------------- */

static int map_status(struct fiber *f, const struct nbd_request *r, u8 *answer, unsigned most,
		      unsigned *n)
{
	struct image *img = r->conn->server->export->img;
	u64 at = 0, extent = 0;
	u32 last = 0;
	int ret = 0;

	*n = 0;
	while (at < r->bytes && ret == 0 && !r->conn->broken) {
		struct chain_extent e;
		u32 flags;

		ret = image_map_chain(f, img, r->goff + at, r->bytes - at, &e);
		if (ret < 0)
			break;
		flags = e.map.kind & MAP_ZERO ? NBD_HOLE | NBD_ZERO : 0;
		if (*n == 0 || flags != last) {
			if (*n == most)
				break;
			++*n;
			extent = 0;
		}
		last = flags;
		extent += e.map.bytes;
		at += e.map.bytes;
		store_be32(answer + *n * 8 - 8, (u32)extent);
		store_be32(answer + *n * 8 - 4, flags);
		fiber_yield(f); /* gigabytes may be asked about */
	}
	return ret;
}

static void do_status(struct fiber *f, struct nbd_request *r)
{
	unsigned most = r->flags & NBD_CMD_REQ_ONE ? 1 : STATUS_MOST, n;
	AUTO_FREE u8 *answer = try_alloc(most * 8);
	u8 context[4];
	int ret = answer ? map_status(f, r, answer, most, &n) : -ENOMEM;

	if (ret < 0) {
		send_error_chunk(f, r, ret);
		return;
	}
	store_be32(context, ALLOCATION_CONTEXT);
	struct iovec parts[2] = {{context, sizeof(context)}, {answer, n * 8}};

	send_chunk(f, r, NBD_CHUNK_STATUS | LAST_CHUNK, parts);
}

/* --- changes --------------------------------------------------------------------- */

static int do_zero(struct fiber *f, struct nbd_request *r)
{
	u32 flags = r->flags & NBD_CMD_NO_HOLE ? 0 : ZERO_MAY_UNMAP;

	if (r->flags & NBD_CMD_FAST_ZERO)
		flags |= ZERO_NO_FALLBACK;
	return image_zero(f, r->conn->server->export->img, r->goff, r->bytes, flags);
}

static int do_change(struct fiber *f, struct nbd_request *r)
{
	const struct nbd_export *e = r->conn->server->export;
	int ret = 0;

	switch (r->type) {
	case NBD_CMD_WRITE: ret = image_pwrite(f, e->img, r->goff, r->buf, r->bytes); break;
	case NBD_CMD_WRITE_ZEROES: ret = do_zero(f, r); break;
	case NBD_CMD_TRIM:
		if (e->discard)
			ret = image_discard(f, e->img, r->goff, r->bytes);
		break;
	case NBD_CMD_FLUSH: return image_flush(f, e->img);
	default: break; /* CACHE: a hint that is not needed */
	}
	if (ret == 0 && r->flags & NBD_CMD_FUA)
		ret = image_flush(f, e->img);
	return MIN(ret, 0);
}

/* --- life of a request ------------------------------------------------------------- */

void nbd_request_free(struct nbd_request *r)
{
	free(r->buf);
	free(r);
}

static struct nbd_request *request_new(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;
	struct list *item = list_pop(&s->free_requests);
	struct nbd_request *r;

	if (item) {
		s->n_free_requests--;
		r = list_entry(item, struct nbd_request, link);
	} else {
		r = xnew(struct nbd_request);
	}
	r->conn = c;
	list_init(&r->link);
	return r;
}

static void request_end(struct nbd_request *r)
{
	struct nbd_conn *c = r->conn;
	struct nbd_server *s = c->server;

	s->buffer_bytes -= r->charged;
	r->charged = 0;
	if (r->room > FREE_BUFFER_MOST || s->n_free_requests >= FREE_REQUESTS) {
		nbd_request_free(r);
	} else {
		s->n_free_requests++;
		list_push(&s->free_requests, &r->link);
	}
	fiber_queue_wake_all(&s->memory);
	c->in_flight--;
	fiber_queue_wake_all(&c->room);
}

/* A buffer for the request's bytes, as soon as there is memory for it. */
static int request_buffer(struct fiber *f, struct nbd_request *r, u32 bytes)
{
	struct nbd_server *s = r->conn->server;
	u32 room = MAX((u32)align_up(bytes, 4096), r->room);

	while (s->buffer_bytes && s->buffer_bytes + room > MAX_BUFFER_BYTES)
		fiber_queue_wait(f, &s->memory);
	if (r->room < bytes) {
		free(r->buf);
		r->room = 0;
		r->buf = try_alloc_aligned(room, 4096);
		if (!r->buf)
			return -ENOMEM;
		r->room = room;
	}
	r->charged = r->room;
	s->buffer_bytes += r->charged;
	return 0;
}

static void request_run(struct fiber *f, void *arg)
{
	struct nbd_request *r = arg;

	if (r->type == NBD_CMD_READ)
		do_read(f, r);
	else if (r->type == NBD_CMD_BLOCK_STATUS)
		do_status(f, r);
	else
		send_end(f, r, do_change(f, r));
	request_end(r);
}

static bool changes(const struct nbd_request *r)
{
	return r->type == NBD_CMD_WRITE || r->type == NBD_CMD_TRIM ||
	       r->type == NBD_CMD_WRITE_ZEROES;
}

/* What the request may not ask for. */
static int judge(const struct nbd_request *r)
{
	static const u16 allowed[] = {
		[NBD_CMD_READ] = NBD_CMD_DF,
		[NBD_CMD_WRITE] = 0,
		[NBD_CMD_DISC] = 0,
		[NBD_CMD_FLUSH] = 0,
		[NBD_CMD_TRIM] = 0,
		[NBD_CMD_CACHE] = 0,
		[NBD_CMD_WRITE_ZEROES] = NBD_CMD_NO_HOLE | NBD_CMD_FAST_ZERO,
		[NBD_CMD_BLOCK_STATUS] = NBD_CMD_REQ_ONE,
	};
	const struct nbd_conn *c = r->conn;
	const struct nbd_export *e = c->server->export;
	u64 end;

	if (r->type >= ARRAY_LEN(allowed) || r->flags & ~(allowed[r->type] | NBD_CMD_FUA))
		return -EINVAL;
	if (changes(r) && e->readonly)
		return -EPERM;
	if (r->type == NBD_CMD_FLUSH)
		return 0;
	if (!add_ok(r->goff, r->bytes, &end) || end > e->img->bytes)
		return changes(r) ? -ENOSPC : -EINVAL;
	if (r->type == NBD_CMD_READ && r->bytes > NBD_MAX_PAYLOAD)
		return -EOVERFLOW;
	if (r->type == NBD_CMD_BLOCK_STATUS && (!c->allocation || !r->bytes))
		return -EINVAL;
	if (!r->bytes || !is_aligned(r->goff | r->bytes, e->img->request_align))
		return -EINVAL;
	return 0;
}

/* The payload of a write comes whatever we think of the request.  A client that
 * stops in the middle is not waited for. */
static int receive_payload(struct fiber *f, struct nbd_request *r)
{
	int ret;

	if (r->bytes > NBD_MAX_PAYLOAD)
		return -EPROTO;
	ret = request_buffer(f, r, r->bytes);
	if (ret == 0) {
		sock_set_deadline(&r->conn->sock, now_ns() + PAYLOAD_TIMEOUT_NS);
		ret = sock_recv(f, &r->conn->sock, r->buf, r->bytes);
		sock_set_deadline(&r->conn->sock, 0);
	}
	return ret;
}

/* Fill in the request from the wire: negative when the connection is to end. */
static int receive(struct fiber *f, struct nbd_conn *c, struct nbd_request *r)
{
	u8 head[NBD_REQUEST_BYTES];
	int ret;

	sock_wait_readable(f, &c->sock);
	sock_set_deadline(&c->sock, now_ns() + PAYLOAD_TIMEOUT_NS);
	ret = sock_recv(f, &c->sock, head, sizeof(head));
	sock_set_deadline(&c->sock, 0);
	if (ret < 0)
		return ret;
	if (load_be32(head) != NBD_REQUEST_MAGIC)
		return -EPROTO;
	r->flags = load_be16(head + 4);
	r->type = load_be16(head + 6);
	r->cookie = load_be64(head + 8);
	r->goff = load_be64(head + 16);
	r->bytes = load_be32(head + 24);
	if (r->type == NBD_CMD_DISC)
		return -ESHUTDOWN;
	return r->type == NBD_CMD_WRITE ? receive_payload(f, r) : 0;
}

void nbd_transmission(struct fiber *f, struct nbd_conn *c)
{
	while (!c->broken) {
		struct nbd_request *r;
		int ret;

		while (c->in_flight >= MAX_IN_FLIGHT)
			fiber_queue_wait(f, &c->room);
		r = request_new(c);
		c->in_flight++;
		ret = receive(f, c, r);
		if (ret < 0) {
			request_end(r);
			return;
		}
		ret = judge(r);
		if (ret == 0 && r->type == NBD_CMD_READ)
			ret = request_buffer(f, r, r->bytes);
		if (ret < 0) {
			send_end(f, r, ret);
			request_end(r);
		} else if (fiber_spawn(fiber_loop(f), request_run, r) < 0) {
			request_run(f, r);
		}
	}
}
