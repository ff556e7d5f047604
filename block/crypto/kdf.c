/* PBKDF2 with HMAC (RFC 8018, RFC 2104); see kdf.h.
 *
 * The inner loop is what opening a disk waits for.  libcrypto's PBKDF2 sets up a
 * digest twice in each iteration; for the usual hashes the compression function
 * is called directly instead, from states that have the key's pads in them, three
 * times as fast.  Thread: computations on pool threads. */
#include "block/crypto/kdf.h"

#include "base/bytes.h"
#include "base/pool.h"
#include "block/crypto/lib.h"

#include <errno.h>
#include <time.h>

enum hash_kind {
	HASH_SHA1,
	HASH_SHA256,
	HASH_SHA512,
	HASH_SHA224,
	HASH_SHA384,
	HASH_RIPEMD160,
	HASH_MD5
};

struct hash {
	const char *name;
	size_t bytes;
	enum hash_kind kind;
};

static const struct hash hashes[] = {
	{"sha256", 32, HASH_SHA256}, {"sha1", 20, HASH_SHA1},	  {"sha512", 64, HASH_SHA512},
	{"sha224", 28, HASH_SHA224}, {"sha384", 48, HASH_SHA384}, {"ripemd160", 20, HASH_RIPEMD160},
	{"md5", 16, HASH_MD5},
};

static bool is_fast(const struct hash *h)
{
	return h->kind <= HASH_SHA512;
}

static const EVP_MD *evp_of(const struct hash *h)
{
	const struct crypto_lib *lib = crypto_lib();

	switch (h->kind) {
	case HASH_SHA1: return lib->EVP_sha1();
	case HASH_SHA256: return lib->EVP_sha256();
	case HASH_SHA512: return lib->EVP_sha512();
	case HASH_SHA224: return lib->EVP_sha224();
	case HASH_SHA384: return lib->EVP_sha384();
	case HASH_RIPEMD160: return lib->EVP_ripemd160();
	case HASH_MD5: break;
	}
	return lib->EVP_md5();
}

const struct hash *hash_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(hashes); i++)
		if (!strcmp(hashes[i].name, name))
			return &hashes[i];
	return NULL;
}

size_t hash_bytes(const struct hash *h)
{
	return h->bytes;
}

int hash_run(const struct hash *h, const void *a, size_t a_bytes, const void *b, size_t b_bytes,
	     u8 *out)
{
	const struct crypto_lib *lib = crypto_lib();
	EVP_MD_CTX *x = lib->EVP_MD_CTX_new();
	bool done = x && lib->EVP_DigestInit_ex(x, evp_of(h), NULL) &&
		    lib->EVP_DigestUpdate(x, a, a_bytes) && lib->EVP_DigestUpdate(x, b, b_bytes) &&
		    lib->EVP_DigestFinal_ex(x, out, NULL);

	lib->EVP_MD_CTX_free(x);
	return done ? 0 : -EIO;
}

/* --- one block of the key ------------------------------------------------------------- */

struct block {
	const struct kdf *k;
	u32 index; /* from 1 */
	u8 out[HASH_MOST];
	int result;
	u64 cpu_ns;
};

/* Digest and compression state of the fast hashes. */
union state {
	SHA_CTX sha1;
	SHA256_CTX sha256;
	SHA512_CTX sha512;
};
#define BLOCK_MOST 128 /* what SHA-512 compresses at a time */

static size_t block_bytes(const struct hash *h)
{
	return h->kind == HASH_SHA512 ? 128 : 64;
}

static void fast_init(const struct hash *h, union state *s)
{
	const struct crypto_lib *lib = crypto_lib();

	switch (h->kind) {
	case HASH_SHA1: lib->SHA1_Init(&s->sha1); break;
	case HASH_SHA256: lib->SHA256_Init(&s->sha256); break;
	default: lib->SHA512_Init(&s->sha512); break;
	}
}

static void fast_compress(const struct hash *h, union state *s, const u8 *block)
{
	const struct crypto_lib *lib = crypto_lib();

	switch (h->kind) {
	case HASH_SHA1: lib->SHA1_Transform(&s->sha1, block); break;
	case HASH_SHA256: lib->SHA256_Transform(&s->sha256, block); break;
	default: lib->SHA512_Transform(&s->sha512, block); break;
	}
}

static void fast_digest(const struct hash *h, const union state *s, u8 *out)
{
	const SHA_LONG sha1[5] = {s->sha1.h0, s->sha1.h1, s->sha1.h2, s->sha1.h3, s->sha1.h4};

	switch (h->kind) {
	case HASH_SHA1:
		for (unsigned i = 0; i < 5; i++)
			store_be32(out + i * 4, sha1[i]);
		break;
	case HASH_SHA256:
		for (unsigned i = 0; i < 8; i++)
			store_be32(out + i * 4, s->sha256.h[i]);
		break;
	default:
		for (unsigned i = 0; i < 8; i++)
			store_be64(out + i * 8, s->sha512.h[i]);
	}
}

struct hmac {
	const struct hash *h;
	union state inner, outer; /* after the pads */
	u8 block[BLOCK_MOST];	  /* a digest with its padding, ready to be compressed */
};

static int hmac_init(struct hmac *m, const struct kdf *k)
{
	u8 pad[BLOCK_MOST] = {0};
	size_t room = block_bytes(k->hash);
	int ret = 0;

	m->h = k->hash;
	if (k->password->bytes > room)
		ret = hash_run(m->h, NULL, 0, k->password->data, k->password->bytes, pad);
	else if (k->password->bytes)
		memcpy(pad, k->password->data, k->password->bytes);
	fast_init(m->h, &m->inner);
	fast_init(m->h, &m->outer);
	for (size_t i = 0; i < room; i++)
		pad[i] ^= 0x36;
	fast_compress(m->h, &m->inner, pad);
	for (size_t i = 0; i < room; i++)
		pad[i] ^= 0x36 ^ 0x5c;
	fast_compress(m->h, &m->outer, pad);
	wipe(pad, sizeof(pad));
	/* Padding of a message of one pad and one digest. */
	memset(m->block, 0, sizeof(m->block));
	m->block[m->h->bytes] = 0x80;
	store_be32(m->block + room - 4, (u32)(room + m->h->bytes) * 8);
	return ret;
}

/* m->block: a digest; then its HMAC. */
static void hmac_again(struct hmac *m)
{
	union state s = m->inner;

	fast_compress(m->h, &s, m->block);
	fast_digest(m->h, &s, m->block);
	s = m->outer;
	fast_compress(m->h, &s, m->block);
	fast_digest(m->h, &s, m->block);
}

static int first_round(const struct block *b, u8 *out)
{
	const struct crypto_lib *lib = crypto_lib();
	const struct kdf *k = b->k;
	struct key salt;
	int ret = key_new(&salt, k->salt_bytes + 4);

	if (ret < 0)
		return ret;
	memcpy(salt.data, k->salt, k->salt_bytes);
	store_be32(salt.data + k->salt_bytes, b->index);
	if (!lib->EVP_Q_mac(NULL, "HMAC", NULL, lib->EVP_MD_get0_name(evp_of(k->hash)), NULL,
			    k->password->bytes ? k->password->data : (const u8 *)"",
			    k->password->bytes, salt.data, salt.bytes, out, HASH_MOST, NULL))
		ret = -EIO;
	key_wipe(&salt);
	return ret;
}

static int block_fast(struct block *b)
{
	const struct hash *h = b->k->hash;
	struct hmac m;
	int ret = hmac_init(&m, b->k);

	if (ret == 0)
		ret = first_round(b, m.block);
	/* The MAC took no more room than the digest: the padding is as it was. */
	memcpy(b->out, m.block, h->bytes);
	for (u32 i = 1; i < b->k->iterations && ret == 0; i++) {
		hmac_again(&m);
		for (size_t n = 0; n < h->bytes; n++)
			b->out[n] ^= m.block[n];
	}
	wipe(&m, sizeof(m));
	return ret;
}

/* The library makes whole keys: the last block of one of `index` blocks. */
static int block_slow(struct block *b)
{
	const struct kdf *k = b->k;
	u8 all[HASH_MOST * 4];
	size_t bytes = k->hash->bytes;
	int ret = 0;

	if (b->index * bytes > sizeof(all) || k->iterations > INT32_MAX)
		return -EINVAL;
	if (!crypto_lib()->PKCS5_PBKDF2_HMAC((const char *)k->password->data,
					     (int)k->password->bytes, k->salt, (int)k->salt_bytes,
					     (int)k->iterations, evp_of(k->hash),
					     (int)(b->index * bytes), all))
		ret = -EIO;
	memcpy(b->out, all + (b->index - 1) * bytes, bytes);
	wipe(all, sizeof(all));
	return ret;
}

static u64 thread_cpu_ns(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t))
		return 0;
	return (u64)t.tv_sec * NS_PER_SEC + (u64)t.tv_nsec;
}

static int block_run(void *arg)
{
	struct block *b = arg;
	u64 start = thread_cpu_ns();

	b->result = is_fast(b->k->hash) ? block_fast(b) : block_slow(b);
	b->cpu_ns = thread_cpu_ns() - start;
	return b->result;
}

/* --- all blocks ------------------------------------------------------------------------- */

struct side {
	struct block b;
	struct fiber_queue *done;
	u32 *pending;
};

static void side_fiber(struct fiber *f, void *arg)
{
	struct side *s = arg;

	(void)pool_call(f, block_run, &s->b);
	--*s->pending;
	fiber_queue_wake_all(s->done);
}

static int run_blocks(struct fiber *f, struct side *sides, size_t n)
{
	struct fiber_queue done;
	u32 pending = 0;
	int ret = 0;

	fiber_queue_init(&done);
	for (size_t i = 0; i < n; i++) {
		sides[i].done = &done;
		sides[i].pending = &pending;
		pending++;
		if (fiber_spawn(fiber_loop(f), side_fiber, &sides[i]) < 0) {
			pending--;
			(void)pool_call(f, block_run, &sides[i].b);
		}
	}
	while (pending)
		fiber_queue_wait(f, &done);
	for (size_t i = 0; i < n; i++)
		ret = ret < 0 ? ret : sides[i].b.result;
	return ret;
}

int kdf_run(struct fiber *f, const struct kdf *k, u8 *out, size_t bytes)
{
	size_t each = k->hash->bytes, n = DIV_ROUND_UP(bytes, each);
	struct side *sides = xnew_n(struct side, n);
	int ret;

	assert(k->iterations && n);
	for (size_t i = 0; i < n; i++)
		sides[i].b = (struct block){.k = k, .index = (u32)i + 1};
	ret = run_blocks(f, sides, n);
	for (size_t i = 0; i < n; i++)
		memcpy(out + i * each, sides[i].b.out, MIN(each, bytes - i * each));
	wipe(sides, n * sizeof(*sides));
	free(sides);
	return ret;
}

#define SPEED_NS      (50 * NS_PER_MS)
#define SPEED_FIRST   4096
#define SPEED_DOUBLES 20 /* where the clock stands still, there is an end all the same */

u64 kdf_speed(struct fiber *f, const struct hash *h, size_t key_bytes)
{
	static const u8 salt[32];
	struct key password = {0};
	struct kdf k = {h, &password, salt, sizeof(salt), SPEED_FIRST};
	struct block b = {.k = &k, .index = 1};
	u64 rate;

	for (unsigned i = 0; i < SPEED_DOUBLES; i++) {
		(void)pool_call(f, block_run, &b);
		if (b.cpu_ns >= (u64)SPEED_NS || b.result < 0)
			break;
		k.iterations *= 2;
	}
	rate = (u64)((double)k.iterations * (double)NS_PER_SEC / (double)MAX(b.cpu_ns, (u64)1));
	return MAX(rate / DIV_ROUND_UP(key_bytes, h->bytes), (u64)1);
}
