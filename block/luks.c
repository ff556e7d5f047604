/* Raw LUKS containers: a LUKS1 header and key slots, the encrypted disk behind.
 *
 * LUKS1 On-Disk Format Specification 1.2.3.  Sectors are numbered from the payload's
 * start.  Nothing in the disk is ever known to be zero.  Thread: the image's loop. */
#include "block/luks.h"

#include "base/io.h"
#include "block/aligned.h"
#include "block/create.h"
#include "block/crypt_io.h"
#include "block/crypto/luks.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/file.h"
#include "block/luks_amend.h"
#include "block/unlock.h"

#include <errno.h>

struct luks_image {
	struct image img;
	struct luks *luks; /* [const] */
	u64 payload;	   /* [const] bytes in front of the disk */
	struct image_crypt crypt;
};

static struct luks_image *to_luks(struct image *img)
{
	return container_of(img, struct luks_image, img);
}

struct luks *luks_image_header(struct image *img)
{
	assert(img->driver == &luks_driver);
	return to_luks(img)->luks;
}

/* --- the header's place: the start of the file ---------------------------------------- */

static int head_read(struct fiber *f, void *arg, u64 at, void *buf, u64 bytes)
{
	struct image *file = arg;
	u64 have = bytes;

	if (!file->grows)
		have = at >= file->bytes ? 0 : MIN(bytes, file->bytes - at);
	memset((u8 *)buf + have, 0, bytes - have);
	return have ? image_pread(f, file, at, buf, have) : 0;
}

static int head_write(struct fiber *f, void *arg, u64 at, const void *buf, u64 bytes)
{
	return image_pwrite(f, arg, at, buf, bytes);
}

static int head_sync(struct fiber *f, void *arg)
{
	return image_flush(f, arg);
}

static struct luks_io head_io(struct image *file)
{
	return (struct luks_io){head_read, head_write, head_sync, file};
}

/* --- opening ------------------------------------------------------------------------------ */

static int luks_image_probe(const u8 *head, size_t bytes)
{
	return luks_probe(head, bytes) ? 100 : 0;
}

static int luks_image_close(struct fiber *f, struct image *img)
{
	luks_free(to_luks(img)->luks);
	image_crypt_fini(&to_luks(img)->crypt);
	return 0;
}

static int luks_image_open(struct fiber *f, struct image *img, const struct open_policy *policy,
			   struct error *err)
{
	struct luks_image *l = to_luks(img);
	const struct luks_io io = head_io(img->below);
	int ret;

	image_crypt_init(&l->crypt);
	ret = luks_load(f, &l->luks, &io, err);
	if (ret < 0)
		return ret;
	l->payload = luks_payload_bytes(l->luks);
	if (l->payload > img->below->bytes) {
		luks_image_close(f, img);
		return err_set_errno(err, -EIO, "Could not refresh total sector count");
	}
	img->bytes = align_up(img->below->bytes - l->payload, CIPHER_SECTOR);
	img->writable &= img->below->writable;
	img->locked = true;
	ret = image_unlock_open(f, img, policy, "key-secret", err);
	if (ret < 0)
		luks_image_close(f, img);
	return ret;
}

static int luks_image_unlock(struct fiber *f, struct image *img, const struct key *passphrase,
			     struct error *err)
{
	struct luks_image *l = to_luks(img);
	int ret = luks_unlock(f, l->luks, passphrase, err);

	if (ret == 0) { /* one owner */
		l->crypt.cipher = l->luks->cipher;
		l->luks->cipher = NULL;
	}
	return ret;
}

/* --- requests -------------------------------------------------------------------------------- */

/* The last sector may lie partly beyond the end of the file. */
static int read_payload(struct fiber *f, struct image *file, u64 at, const struct iovec *iov,
			unsigned n)
{
	u64 bytes = iov_bytes(iov, n), have;
	struct image_transfer t = {.fn = image_read, .img = file, .offset = at, .iov = iov, .n = n};

	if (file->grows || at + bytes <= file->bytes)
		return image_read(f, file, at, iov, n);
	have = at < file->bytes ? file->bytes - at : 0;
	iov_zero(iov, n, have, bytes - have);
	t.bytes = have;
	return have ? image_transfer(f, &t) : 0;
}

static int transfer(struct fiber *f, struct luks_image *l, u64 goff, struct image_transfer *t)
{
	t->img = l->img.below;
	t->offset = l->payload + goff;
	t->bytes = iov_bytes(t->iov, t->n);
	t->crypt = &l->crypt;
	t->sector = goff / CIPHER_SECTOR;
	return image_transfer(f, t);
}

static int read_sectors(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			unsigned n)
{
	struct image_transfer t = {.fn = read_payload, .iov = iov, .n = n};

	return transfer(f, to_luks(img), goff, &t);
}

static int write_sectors(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			 unsigned n)
{
	struct image_transfer t = {.fn = image_write, .iov = iov, .n = n, .encrypt = true};

	return transfer(f, to_luks(img), goff, &t);
}

static struct aligned any_byte(struct image *img)
{
	return (struct aligned){img, read_sectors, write_sectors, &to_luks(img)->crypt.locks};
}

static int luks_image_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			   unsigned n)
{
	const struct aligned a = any_byte(img);

	return aligned_read(f, &a, goff, iov, n);
}

static int luks_image_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			    unsigned n)
{
	const struct aligned a = any_byte(img);

	return aligned_write(f, &a, goff, iov, n);
}

static int luks_image_flush(struct fiber *f, struct image *img)
{
	return image_flush(f, img->below);
}

static int luks_image_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
			     struct error *err)
{
	u64 whole;
	int ret;

	if (!add_ok(bytes, to_luks(img)->payload, &whole) || whole > INT64_MAX)
		return err_set(err, -EFBIG, "The requested file size is too large");
	ret = image_resize_alloc(f, img->below, whole, mode, err);
	if (ret == 0)
		img->bytes = bytes;
	return ret;
}

/* --- creation ------------------------------------------------------------------------------------
 */

static const struct create_option luks_create_table[] = {
	{"size", OPTION_SIZE, "Virtual disk size", NULL},
	{"key-secret", OPTION_STR, "ID of the secret that provides the keyslot passphrase", NULL},
	{"cipher-alg", OPTION_STR, "Name of encryption cipher algorithm", NULL},
	{"cipher-mode", OPTION_STR, "Name of encryption cipher mode", NULL},
	{"ivgen-alg", OPTION_STR, "Name of IV generator algorithm", NULL},
	{"ivgen-hash-alg", OPTION_STR, "Name of IV generator hash algorithm", NULL},
	{"hash-alg", OPTION_STR, "Name of encryption hash algorithm", NULL},
	{"iter-time", OPTION_NUM, "Time to spend in PBKDF in milliseconds", NULL},
	{0},
};

static int format_file(struct fiber *f, const struct create_request *req, struct image *file,
		       const struct luks_options *o, struct error *err)
{
	enum prealloc mode = PREALLOC_OFF;
	const struct luks_io io = head_io(file);
	const struct unlock_wanted wanted = {req->name, opts_get(&req->options, "key-secret"),
					     "key-secret"};
	struct key passphrase = {0};
	u64 payload;
	int ret = create_get_prealloc(&req->options, &mode, err);

	if (ret == 0)
		ret = luks_options_payload(o, &payload, err);
	if (ret == 0 && req->bytes > INT64_MAX - payload - CIPHER_SECTOR)
		ret = err_set(err, -EFBIG, "The requested file size is too large");
	if (ret == 0)
		ret = unlock_passphrase(f, req->unlock, &wanted, &passphrase, err);
	if (ret == 0)
		ret = image_resize_alloc(f, file, align_up(req->bytes, CIPHER_SECTOR) + payload,
					 mode, err);
	if (ret == 0)
		ret = luks_format(f, &io, o, &passphrase, err);
	key_wipe(&passphrase);
	return ret;
}

static int luks_image_create(struct fiber *f, const struct create_request *req, struct error *err)
{
	struct luks_options o;
	struct image *file;
	int ret = luks_options_parse(&o, &req->options, "", err);

	if (ret == 0)
		ret = create_host_file(f, req, req->name, 0, &file, err);
	if (ret < 0)
		return ret;
	ret = format_file(f, req, file, &o, err);
	if (ret < 0)
		file_remove(file);
	return create_close_file(f, file, ret, err);
}

static int luks_image_amend(struct fiber *f, struct image *img, const struct amend_request *req,
			    struct error *err)
{
	return luks_amend(f, to_luks(img)->luks, req, "", err);
}

static bool luks_is_encrypted(const struct image *img)
{
	return true;
}

static const struct image_graph_ops graph_ops = {.is_encrypted = luks_is_encrypted};

const struct image_driver luks_driver = {
	.graph = &graph_ops,
	.name = "luks",
	.state_size = sizeof(struct luks_image),
	.probe = luks_image_probe,
	.options = "key-secret",
	.create_options = luks_create_table,
	.create = luks_image_create,
	.open = luks_image_open,
	.read = luks_image_read,
	.write = luks_image_write,
	.flush = luks_image_flush,
	.resize = luks_image_resize,
	.amend_options = luks_amend_table,
	.amend = luks_image_amend,
	.unlock = luks_image_unlock,
	.close = luks_image_close,
};
