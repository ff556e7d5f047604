/* The handshake of a server: fixed newstyle, its options and their answers.
 *
 * doc/proto.md of the NBD project, "Fixed newstyle negotiation", "Option types",
 * "Metadata querying".  What clients say is judged here; memory for it is bounded
 * by OPTION_MOST, time by the socket's deadline.  Thread: the image's loop. */
#include "block/nbd/server_int.h"

#include <errno.h>

#define OPTION_MOST	   (64 * KiB)
#define PREFERRED_BYTES	   (64 * KiB)
#define ALLOCATION_CONTEXT 1u

/* Ends of an option's handling, besides negative errors. */
enum { GO_ON, TRANSMISSION };

struct option {
	struct nbd_conn *c;
	u32 type;
	const u8 *data; /* walked through */
	u32 left;
};

static bool take(struct option *o, u32 bytes, const u8 **out)
{
	if (bytes > o->left)
		return false;
	*out = o->data;
	o->data += bytes;
	o->left -= bytes;
	return true;
}

static bool take_u16(struct option *o, u16 *out)
{
	const u8 *p;
	bool ok = take(o, 2, &p);

	if (ok)
		*out = load_be16(p);
	return ok;
}

static bool take_u32(struct option *o, u32 *out)
{
	const u8 *p;
	bool ok = take(o, 4, &p);

	if (ok)
		*out = load_be32(p);
	return ok;
}

static int reply(struct fiber *f, const struct option *o, u32 type, const void *data, u32 bytes)
{
	u8 head[20];
	struct iovec iov[] = {{head, sizeof(head)}, {(void *)(uintptr_t)data, bytes}};

	store_be64(head, NBD_OPTION_REPLY);
	store_be32(head + 8, o->type);
	store_be32(head + 12, type);
	store_be32(head + 16, bytes);
	return sock_send(f, &o->c->sock, iov, bytes ? 2 : 1);
}

static int refuse(struct fiber *f, const struct option *o, u32 type, const char *text)
{
	return reply(f, o, type, text, (u32)strlen(text));
}

u16 nbd_export_flags(const struct nbd_conn *c)
{
	const struct nbd_export *e = c->server->export;
	u16 flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_FLUSH | NBD_FLAG_FUA | NBD_FLAG_MULTI_CONN |
		    NBD_FLAG_CACHE;

	if (c->structured)
		flags |= NBD_FLAG_DF;
	if (e->readonly)
		flags |= NBD_FLAG_READ_ONLY;
	else
		flags |= NBD_FLAG_TRIM | NBD_FLAG_WRITE_ZEROES | NBD_FLAG_FAST_ZERO;
	return flags;
}

static bool is_ours(const struct nbd_conn *c, const u8 *name, u32 bytes)
{
	const char *ours = c->server->export->name;

	return strlen(ours) == bytes && !memcmp(ours, name, bytes);
}

/* --- one option each --------------------------------------------------------------- */

static int option_export_name(struct fiber *f, struct option *o)
{
	struct nbd_conn *c = o->c;
	u8 answer[10 + 124] = {0};
	struct iovec iov = {answer, c->no_zeroes ? 10 : sizeof(answer)};
	int ret;

	if (!is_ours(c, o->data, o->left))
		return -ENOENT; /* this option has no way to say so */
	store_be64(answer, c->server->export->img->bytes);
	store_be16(answer + 8, nbd_export_flags(c));
	ret = sock_send(f, &c->sock, &iov, 1);
	return ret < 0 ? ret : TRANSMISSION;
}

static int option_list(struct fiber *f, struct option *o)
{
	const struct nbd_export *e = o->c->server->export;
	u32 name = (u32)strlen(e->name);
	u8 data[4 + NBD_MAX_NAME];
	int ret;

	if (o->left)
		return refuse(f, o, NBD_REP_ERR_INVALID, "this option has no data");
	assert(name <= NBD_MAX_NAME);
	store_be32(data, name);
	memcpy(data + 4, e->name, name);
	ret = reply(f, o, NBD_REP_SERVER, data, 4 + name);
	return ret < 0 ? ret : reply(f, o, NBD_REP_ACK, NULL, 0);
}

static int send_text_info(struct fiber *f, struct option *o, u16 type, const char *text)
{
	u8 data[2 + NBD_MAX_NAME];
	u32 bytes = (u32)MIN(strlen(text), (size_t)NBD_MAX_NAME);

	store_be16(data, type);
	memcpy(data + 2, text, bytes);
	return reply(f, o, NBD_REP_INFO, data, 2 + bytes);
}

static int send_export_info(struct fiber *f, struct option *o)
{
	const struct image *img = o->c->server->export->img;
	u8 data[14];
	int ret;

	store_be16(data, NBD_INFO_EXPORT);
	store_be64(data + 2, img->bytes);
	store_be16(data + 10, nbd_export_flags(o->c));
	ret = reply(f, o, NBD_REP_INFO, data, 12);
	if (ret < 0)
		return ret;
	store_be16(data, NBD_INFO_BLOCK_SIZE);
	store_be32(data + 2, img->request_align);
	store_be32(data + 6, MAX((u32)PREFERRED_BYTES, img->request_align));
	store_be32(data + 10, NBD_MAX_PAYLOAD);
	return reply(f, o, NBD_REP_INFO, data, 14);
}

static int option_go(struct fiber *f, struct option *o)
{
	const struct nbd_export *e = o->c->server->export;
	bool go = o->type == NBD_OPT_GO;
	const u8 *name;
	u32 name_bytes;
	u16 n, type;
	int ret = 0;

	if (!take_u32(o, &name_bytes) || !take(o, name_bytes, &name) || !take_u16(o, &n) ||
	    o->left != 2u * n)
		return refuse(f, o, NBD_REP_ERR_INVALID, "bad lengths");
	if (!is_ours(o->c, name, name_bytes))
		return refuse(f, o, NBD_REP_ERR_UNKNOWN, "export not found");
	while (ret == 0 && take_u16(o, &type)) {
		if (type == NBD_INFO_NAME)
			ret = send_text_info(f, o, type, e->name);
		else if (type == NBD_INFO_DESCRIPTION && e->description)
			ret = send_text_info(f, o, type, e->description);
	}
	if (ret == 0)
		ret = send_export_info(f, o);
	if (ret == 0)
		ret = reply(f, o, NBD_REP_ACK, NULL, 0);
	return ret < 0 ? ret : go ? TRANSMISSION : GO_ON;
}

static int option_structured(struct fiber *f, struct option *o)
{
	if (o->left)
		return refuse(f, o, NBD_REP_ERR_INVALID, "this option has no data");
	o->c->structured = true;
	return reply(f, o, NBD_REP_ACK, NULL, 0);
}

static int send_context(struct fiber *f, struct option *o)
{
	u8 data[4 + sizeof(NBD_CONTEXT_ALLOCATION) - 1];

	store_be32(data, o->type == NBD_OPT_SET_META_CONTEXT ? ALLOCATION_CONTEXT : 0);
	memcpy(data + 4, NBD_CONTEXT_ALLOCATION, sizeof(data) - 4);
	return reply(f, o, NBD_REP_META_CONTEXT, data, sizeof(data));
}

static bool is_text(const u8 *p, u32 bytes, const char *text)
{
	return strlen(text) == bytes && !memcmp(p, text, bytes);
}

/* Walk the queries; *wanted: one of them is for what there is. */
static bool take_queries(struct option *o, u32 n, bool *wanted)
{
	bool list = o->type == NBD_OPT_LIST_META_CONTEXT;
	const u8 *p;
	u32 bytes;

	*wanted = list && !n;
	for (; n; n--) {
		if (!take_u32(o, &bytes) || !take(o, bytes, &p))
			return false;
		*wanted |= is_text(p, bytes, NBD_CONTEXT_ALLOCATION) ||
			   (list && is_text(p, bytes, "base:"));
	}
	return !o->left;
}

static int option_contexts(struct fiber *f, struct option *o)
{
	bool set = o->type == NBD_OPT_SET_META_CONTEXT, wanted;
	u32 name_bytes, n;
	const u8 *name;
	int ret = 0;

	if (set)
		o->c->allocation = false;
	if (!o->c->structured)
		return refuse(f, o, NBD_REP_ERR_INVALID, "structured replies come first");
	if (!take_u32(o, &name_bytes) || !take(o, name_bytes, &name) || !take_u32(o, &n) ||
	    !take_queries(o, n, &wanted))
		return refuse(f, o, NBD_REP_ERR_INVALID, "bad lengths");
	if (!is_ours(o->c, name, name_bytes))
		return refuse(f, o, NBD_REP_ERR_UNKNOWN, "export not found");
	if (wanted)
		ret = send_context(f, o);
	if (ret == 0 && set)
		o->c->allocation = wanted;
	return ret < 0 ? ret : reply(f, o, NBD_REP_ACK, NULL, 0);
}

static int handle(struct fiber *f, struct option *o)
{
	switch (o->type) {
	case NBD_OPT_EXPORT_NAME: return option_export_name(f, o);
	case NBD_OPT_ABORT: (void)reply(f, o, NBD_REP_ACK, NULL, 0); return -ECONNRESET;
	case NBD_OPT_LIST: return option_list(f, o);
	case NBD_OPT_INFO:
	case NBD_OPT_GO: return option_go(f, o);
	case NBD_OPT_STRUCTURED_REPLY: return option_structured(f, o);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT: return option_contexts(f, o);
	default: return refuse(f, o, NBD_REP_ERR_UNSUP, "unknown option");
	}
}

/* --- the course of it ---------------------------------------------------------------- */

static int skip(struct fiber *f, struct nbd_conn *c, u32 bytes)
{
	u8 sink[2048];
	int ret = 0;

	for (u32 part; bytes && ret == 0; bytes -= part) {
		part = MIN(bytes, (u32)sizeof(sink));
		ret = sock_recv(f, &c->sock, sink, part);
	}
	return ret;
}

static int next_option(struct fiber *f, struct nbd_conn *c)
{
	struct option o = {.c = c};
	AUTO_FREE u8 *data = NULL;
	u8 head[16];
	int ret = sock_recv(f, &c->sock, head, sizeof(head));

	if (ret < 0)
		return ret;
	if (load_be64(head) != NBD_OPTION_MAGIC)
		return -EPROTO;
	o.type = load_be32(head + 8);
	o.left = load_be32(head + 12);
	if (o.left > OPTION_MOST) {
		if (o.left > NBD_MAX_PAYLOAD || o.type == NBD_OPT_EXPORT_NAME)
			return -EPROTO;
		ret = skip(f, c, o.left);
		return ret < 0 ? ret : refuse(f, &o, NBD_REP_ERR_TOO_BIG, "too much data");
	}
	data = try_alloc((size_t)o.left + 1);
	if (!data)
		return -ENOMEM;
	o.data = data;
	ret = sock_recv(f, &c->sock, data, o.left);
	return ret < 0 ? ret : handle(f, &o);
}

int nbd_handshake(struct fiber *f, struct nbd_conn *c)
{
	u8 hello[18], flags[4];
	struct iovec iov = {hello, sizeof(hello)};
	int ret;

	store_be64(hello, NBD_MAGIC);
	store_be64(hello + 8, NBD_OPTION_MAGIC);
	store_be16(hello + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	ret = sock_send(f, &c->sock, &iov, 1);
	if (ret == 0)
		ret = sock_recv(f, &c->sock, flags, sizeof(flags));
	if (ret < 0)
		return ret;
	if (load_be32(flags) & ~(u32)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
		return -EPROTO;
	c->no_zeroes = load_be32(flags) & NBD_NO_ZEROES;
	do
		ret = next_option(f, c);
	while (ret == GO_ON);
	return MIN(ret, 0);
}
