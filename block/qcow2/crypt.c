/* Encrypted qcow2 images: crypt_method and the crypto header extension of QEMU's
 * docs/interop/qcow2, "Full disk encryption header".
 *
 * Guest data only is encrypted, the VM state included; metadata is not.  LUKS: the
 * header with its key slots lies in clusters of its own, which have a refcount and
 * are kept off like other metadata; it is rewritten in place, in an order that
 * luks_slots.c knows.  A zero cluster stays one; a cluster that reads as zeros
 * because the file is new does not.  Thread: the image's loop. */
#include "block/qcow2/crypt.h"

#include "base/io.h"
#include "base/log.h"
#include "block/crypto/aes_legacy.h"
#include "block/qcow2/parts.h"
#include "block/unlock.h"

#include <errno.h>

#define HEAD_MOST (64 * MiB) /* bytes of a LUKS header; 2 MiB is usual */

/* --- the header ----------------------------------------------------------------------- */

int qcow2_crypt_extension(struct qcow2 *q, const u8 *data, u32 bytes, struct error *err)
{
	struct disk_crypto x;

	if (be32_get(q->head.crypt_method) != CRYPT_LUKS)
		return err_set(err, -EINVAL,
			       "CRYPTO header extension only expected with LUKS encryption method");
	if (bytes != sizeof(x))
		return err_set(err, -EINVAL,
			       "CRYPTO header extension size %u, but expected size %zu", bytes,
			       sizeof(x));
	memcpy(&x, data, sizeof(x));
	q->crypt.head_hoff = be64_get(x.hoff);
	q->crypt.head_bytes = be64_get(x.bytes);
	if (!q->crypt.head_hoff || !is_aligned(q->crypt.head_hoff, q->cluster_bytes) ||
	    q->crypt.head_hoff >= QCOW2_MAX_HOFF)
		return err_set(err, -EINVAL,
			       "Encryption header offset '%llu' is not a multiple of cluster size "
			       "'%u'",
			       (unsigned long long)q->crypt.head_hoff, q->cluster_bytes);
	if (q->crypt.head_bytes > HEAD_MOST)
		return err_set(err, -EFBIG, "Encryption header is too large: %llu bytes",
			       (unsigned long long)q->crypt.head_bytes);
	return 0;
}

int qcow2_crypt_judge(struct qcow2 *q, struct error *err)
{
	u32 method = be32_get(q->head.crypt_method);

	if (method > CRYPT_LUKS)
		return err_set(err, -EINVAL, "Unsupported encryption method %u", method);
	if (method == CRYPT_LUKS && !q->crypt.head_bytes)
		return err_set(err, -EINVAL, "Missing CRYPTO header for crypt method %u", method);
	q->crypt.method = (enum crypt_method)method;
	return 0;
}

/* --- the place of the LUKS header -------------------------------------------------------- */

static bool is_inside(const struct qcow2 *q, u64 at, u64 bytes)
{
	return bytes <= q->crypt.head_bytes && at <= q->crypt.head_bytes - bytes;
}

static int head_read(struct fiber *f, void *arg, u64 at, void *buf, u64 bytes)
{
	struct qcow2 *q = arg;

	if (!is_inside(q, at, bytes))
		return -EINVAL;
	return qcow2_pread(f, q->img.below, q->crypt.head_hoff + at, buf, bytes);
}

static int head_write(struct fiber *f, void *arg, u64 at, const void *buf, u64 bytes)
{
	struct qcow2 *q = arg;

	if (!is_inside(q, at, bytes))
		return -EINVAL;
	return qcow2_pwrite(f, q, q->crypt.head_hoff + at, buf, bytes);
}

static int head_sync(struct fiber *f, void *arg)
{
	return file_sync(f, arg);
}

/* --- opening -------------------------------------------------------------------------------- */

static int check_format(const struct qcow2 *q, const struct open_policy *policy, struct error *err)
{
	const char *have = q->crypt.method == CRYPT_AES ? "aes" : "luks", *want;

	want = policy->options ? opts_get(policy->options, "encrypt.format") : NULL;
	if (!want || !strcmp(want, have))
		return 0;
	return err_set(err, -EINVAL,
		       "Header reported '%s' encryption format but options specify '%s'", have,
		       want);
}

int qcow2_crypt_open(struct fiber *f, struct qcow2 *q, const struct open_policy *policy,
		     struct error *err)
{
	const struct luks_io io = {head_read, head_write, head_sync, q};
	int ret;

	if (q->crypt.method == CRYPT_NONE)
		return 0;
	image_crypt_init(&q->crypt.io);
	ret = check_format(q, policy, err);
	if (ret == 0 && q->crypt.method == CRYPT_LUKS)
		ret = luks_load(f, &q->crypt.luks, &io, err);
	if (ret < 0)
		return ret;
	q->img.locked = true;
	return image_unlock_open(f, &q->img, policy, "encrypt.key-secret", err);
}

void qcow2_crypt_close(struct qcow2 *q)
{
	luks_free(q->crypt.luks);
	q->crypt.luks = NULL;
	image_crypt_fini(&q->crypt.io);
}

/* Something that is found at the start of disks: a boot sector, a file system, a
 * partition table, or nothing at all. */
static bool is_known(const u8 *b, size_t bytes)
{
	size_t zeros = 0;

	while (zeros < bytes && !b[zeros])
		zeros++;
	return zeros >= 512 || (b[510] == 0x55 && b[511] == 0xaa) ||
	       (b[1080] == 0x53 && b[1081] == 0xef) || !memcmp(b, "XFSB", 4) ||
	       !memcmp(b + 512, "EFI PART", 8) || !memcmp(b + 512, "LABELONE", 8);
}

/* A wrong passphrase cannot be told from a right one: say what it looks like. */
static void judge_plaintext(struct fiber *f, struct qcow2 *q)
{
	u8 head[2048];
	struct iovec iov = {head, sizeof(head)};
	struct extent e;

	if (q->img.bytes < sizeof(head) || l2_map(f, q, 0, sizeof(head), &e) < 0 ||
	    e.kind != EXTENT_DATA || qcow2_read(f, &q->img, 0, &iov, 1) < 0)
		return;
	if (!is_known(head, sizeof(head)))
		log_warn("%s: nothing known at the start of the decrypted disk: is the passphrase "
			 "right?",
			 q->img.name);
	wipe(head, sizeof(head));
}

int qcow2_unlock(struct fiber *f, struct image *img, const struct key *passphrase,
		 struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	int ret;

	if (q->crypt.method == CRYPT_AES) {
		ret = aes_legacy_new(&q->crypt.io.cipher, passphrase, err);
		if (ret == 0)
			judge_plaintext(f, q);
		return ret;
	}
	ret = luks_unlock(f, q->crypt.luks, passphrase, err);
	if (ret == 0) { /* one owner */
		q->crypt.io.cipher = q->crypt.luks->cipher;
		q->crypt.luks->cipher = NULL;
	}
	return ret;
}

/* --- data -------------------------------------------------------------------------------- */

static int read_some(struct fiber *f, struct image *img, u64 hoff, const struct iovec *iov,
		     unsigned n)
{
	assert(n == 1);
	return qcow2_pread(f, img, hoff, iov->iov_base, iov->iov_len);
}

int qcow2_crypt_read(struct fiber *f, struct qcow2 *q, u64 goff, u64 hoff, struct iovec *iov)
{
	struct image_transfer t = {.fn = read_some,
				   .img = q->data,
				   .offset = hoff,
				   .iov = iov,
				   .n = 1,
				   .bytes = iov->iov_len};

	qcow2_crypt_transfer(&q->crypt, goff, &t);
	return image_transfer(f, &t);
}

int qcow2_crypt_write(struct fiber *f, struct qcow2 *q, u64 goff, u64 hoff, const struct iovec *iov,
		      unsigned n)
{
	struct image_transfer t = {.fn = data_write,
				   .img = &q->img,
				   .offset = hoff,
				   .iov = iov,
				   .n = n,
				   .bytes = iov_bytes(iov, n),
				   .encrypt = true};

	qcow2_crypt_transfer(&q->crypt, goff, &t);
	return image_transfer(f, &t);
}

struct luks *qcow2_luks(struct image *img)
{
	return to_qcow2(img)->crypt.luks;
}

enum crypt_method qcow2_crypt_method(const struct image *img)
{
	return container_of(img, struct qcow2, img)->crypt.method;
}

int qcow2_crypt_share(struct image *img, struct cipher **out)
{
	struct qcow2 *q = to_qcow2(img);

	if (!q->crypt.io.cipher)
		return -EACCES;
	*out = cipher_ref(q->crypt.io.cipher);
	return 0;
}

int qcow2_crypt_unlock_shared(struct image *img, struct cipher *cipher)
{
	struct qcow2 *q = to_qcow2(img);

	if (!img->locked) {
		cipher_free(cipher);
		return -EINVAL;
	}
	q->crypt.io.cipher = cipher;
	img->locked = false;
	return 0;
}
