/* Encryption of qcow2 images: legacy AES and LUKS, in one place. */
#ifndef BLOCK_QCOW2_CRYPT_H
#define BLOCK_QCOW2_CRYPT_H

#include "block/crypt_io.h"
#include "block/crypto/luks.h"
#include "block/image.h"

struct qcow2;

enum crypt_method { CRYPT_NONE, CRYPT_AES, CRYPT_LUKS };

/* Part of struct qcow2. */
struct qcow2_crypt {
	enum crypt_method method;  /* [const] */
	u64 head_hoff, head_bytes; /* [const] LUKS header and key material in the file */
	struct luks *luks;	   /* [const] NULL: legacy AES, or none */
	struct image_crypt io;
};

/* --- for the driver --- */
/* A header extension of type EXT_CRYPTO. */
int qcow2_crypt_extension(struct qcow2 *q, const u8 *data, u32 bytes, struct error *err);
/* Judge what the header says; after its extensions were read. */
int qcow2_crypt_judge(struct qcow2 *q, struct error *err);
/* Load the LUKS header and unlock as the policy says; the tables are loaded. */
int qcow2_crypt_open(struct fiber *f, struct qcow2 *q, const struct open_policy *policy,
		     struct error *err);
int qcow2_unlock(struct fiber *f, struct image *img, const struct key *passphrase,
		 struct error *err);
void qcow2_crypt_close(struct qcow2 *q);
/* Number of the first sector of what lies there, for its initialisation vector:
 * legacy AES counts guest sectors, LUKS those of the file. */
static inline u64 qcow2_crypt_sector(const struct qcow2_crypt *c, u64 goff, u64 hoff)
{
	return (c->method == CRYPT_AES ? goff : hoff) / CIPHER_SECTOR;
}
/* Make a transfer between goff and the place t->offset in the file go through the
 * cipher; t->encrypt says which way. */
static inline void qcow2_crypt_transfer(struct qcow2_crypt *c, u64 goff, struct image_transfer *t)
{
	t->crypt = &c->io;
	t->sector = qcow2_crypt_sector(c, goff, t->offset);
}
/* Whole sectors of a cluster's data, zeros beyond the end of the file.  Suspend. */
int qcow2_crypt_read(struct fiber *f, struct qcow2 *q, u64 goff, u64 hoff, struct iovec *iov);
int qcow2_crypt_write(struct fiber *f, struct qcow2 *q, u64 goff, u64 hoff, const struct iovec *iov,
		      unsigned n);

/* --- for creation --- */
struct qcow2_crypt_create {
	enum crypt_method method;
	struct luks_options luks;
	struct key passphrase; /* not for legacy AES */
};
/* From the options of a request, with the passphrase it takes; fini wipes. */
int qcow2_crypt_options(struct fiber *f, const struct create_request *req,
			struct qcow2_crypt_create *out, struct error *err);
void qcow2_crypt_create_fini(struct qcow2_crypt_create *c);
/* Bytes of the LUKS header, 0 without one. */
int qcow2_crypt_header_bytes(const struct qcow2_crypt_create *c, u64 *bytes, struct error *err);
/* Write it at hoff of a fresh image's file.  Suspends. */
int qcow2_crypt_format(struct fiber *f, const struct qcow2_crypt_create *c, struct image *file,
		       u64 hoff, struct error *err);

/* --- for users of images --- */
/* The LUKS header of an open image, locked or not; NULL: none. */
struct luks *qcow2_luks(struct image *img);
enum crypt_method qcow2_crypt_method(const struct image *img); /* img->driver is qcow2 */
/* One file opened twice, by two loops: the cipher of the unlocked image, with one more
 * owner (-EACCES: it is locked), and the locked one unlocked by it, which takes it in
 * any case (-EINVAL: not locked). */
int qcow2_crypt_share(struct image *img, struct cipher **out);
int qcow2_crypt_unlock_shared(struct image *img, struct cipher *cipher);

#endif
