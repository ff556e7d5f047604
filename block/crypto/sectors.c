/* Vectors of sectors through a cipher; see sectors.h.
 *
 * A large request is cut into parts of whole sectors that pool threads work on
 * side by side, each with a context of its own; the loop goes on meanwhile.
 * A sector that lies in two elements of the vector is put together first.
 * Thread: the loop, and pool threads for the parts. */
#include "block/crypto/sectors.h"

#include "base/io.h"
#include "base/pool.h"

#include <errno.h>
#include <unistd.h>

#define INLINE_BYTES (64 * KiB)
#define PARTS_MOST   8

struct part {
	struct cipher *c;
	bool encrypt;
	u64 sector; /* of the first byte of the part */
	const struct iovec *iov;
	unsigned n;
	u64 skip, bytes; /* in the vector */
	u8 *out;	 /* of the part; NULL: in place */
	/* of a part on the pool */
	struct fiber_queue *done;
	u32 *pending;
	int *result;
};

/* One sector that is cut by the ends of elements. */
static int cut_sector(const struct part *p, struct cipher_context *x, u64 at)
{
	u64 sector = p->sector + at / CIPHER_SECTOR;
	u8 whole[CIPHER_SECTOR], *to = p->out ? p->out + at : whole;
	int ret;

	iov_copy_from(p->iov, p->n, p->skip + at, whole, sizeof(whole));
	ret = cipher_run(x, p->encrypt, sector, whole, to, sizeof(whole));
	if (!p->out)
		iov_copy_to(p->iov, p->n, p->skip + at, whole, sizeof(whole));
	wipe(whole, sizeof(whole));
	return ret;
}

/* Memory of the vector at `skip`, and how much follows in one piece. */
static u8 *piece_at(const struct part *p, unsigned *i, u64 *start, u64 skip, u64 *bytes)
{
	while (skip - *start >= p->iov[*i].iov_len)
		*start += p->iov[(*i)++].iov_len;
	*bytes = p->iov[*i].iov_len - (skip - *start);
	return (u8 *)p->iov[*i].iov_base + (skip - *start);
}

static int run_pieces(const struct part *p, struct cipher_context *x)
{
	unsigned i = 0;
	u64 start = 0, bytes;
	int ret = 0;

	for (u64 at = 0; at < p->bytes && ret == 0; at += bytes) {
		u8 *in = piece_at(p, &i, &start, p->skip + at, &bytes);

		bytes = align_down(MIN(bytes, p->bytes - at), CIPHER_SECTOR);
		if (bytes) {
			ret = cipher_run(x, p->encrypt, p->sector + at / CIPHER_SECTOR, in,
					 p->out ? p->out + at : in, bytes);
		} else {
			ret = cut_sector(p, x, at);
			bytes = CIPHER_SECTOR;
		}
	}
	return ret;
}

static int part_run(void *arg)
{
	const struct part *p = arg;
	struct cipher_context *x = cipher_get(p->c);
	int ret;

	if (!x)
		return -ENOMEM;
	ret = run_pieces(p, x);
	cipher_put(p->c, x);
	return ret;
}

static void part_fiber(struct fiber *f, void *arg)
{
	struct part *p = arg;
	int ret = pool_call(f, part_run, p);

	if (ret < 0)
		*p->result = ret;
	--*p->pending;
	fiber_queue_wake_all(p->done);
}

static u64 part_bytes(u64 bytes)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	u64 parts = MIN(MAX(cpus, 1l), (long)PARTS_MOST);

	parts = MIN(parts, DIV_ROUND_UP(bytes, INLINE_BYTES));
	return align_up(DIV_ROUND_UP(bytes, parts), CIPHER_SECTOR);
}

/* The first part's work is waited for by this fiber itself. */
static int run_parts(struct fiber *f, const struct part *all)
{
	struct part parts[PARTS_MOST];
	u64 each = part_bytes(all->bytes), at = 0;
	struct fiber_queue done;
	unsigned n = 0;
	u32 pending = 0;
	int result = 0, ret;

	fiber_queue_init(&done);
	for (; at < all->bytes; at += each, n++) {
		struct part *p = &parts[n];

		assert(n < PARTS_MOST);
		*p = *all;
		p->sector += at / CIPHER_SECTOR;
		p->skip += at;
		p->bytes = MIN(each, all->bytes - at);
		p->out = all->out ? all->out + at : NULL;
		p->done = &done;
		p->pending = &pending;
		p->result = &result;
		if (!n)
			continue;
		pending++;
		if (fiber_spawn(fiber_loop(f), part_fiber, p) < 0)
			part_fiber(f, p);
	}
	ret = pool_call(f, part_run, &parts[0]);
	while (pending)
		fiber_queue_wait(f, &done);
	return ret < 0 ? ret : result;
}

static int run(struct fiber *f, struct part *p)
{
	p->bytes = iov_bytes(p->iov, p->n);
	assert(is_aligned(p->bytes, CIPHER_SECTOR));
	return p->bytes > INLINE_BYTES ? run_parts(f, p) : part_run(p);
}

int sectors_decrypt(struct fiber *f, struct cipher *c, u64 sector, const struct iovec *iov,
		    unsigned n)
{
	struct part p = {.c = c, .sector = sector, .iov = iov, .n = n};

	return run(f, &p);
}

int sectors_encrypt(struct fiber *f, struct cipher *c, u64 sector, const struct iovec *iov,
		    unsigned n, void *out)
{
	struct part p = {.c = c, .encrypt = true, .sector = sector, .iov = iov, .n = n, .out = out};

	return run(f, &p);
}
