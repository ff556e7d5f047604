/* qcow2 for its users: the driver, creation and what `info` and `check` show.
 * Format: QEMU's docs/interop/qcow2; versions 2 and 3. */
#ifndef BLOCK_QCOW2_QCOW2_H
#define BLOCK_QCOW2_QCOW2_H

#include "block/create.h"
#include "block/image.h"

struct qcow2_crypt_create;

struct qcow2_create_options {
	u64 bytes;	   /* guest size, rounded up to 512 */
	u32 version;	   /* 2 or 3; 0: 3 */
	u32 cluster_bytes; /* 512..2 MiB, power of two; 0: 65536 */
	u32 refcount_bits; /* 1..64, power of two; 0: 16 */
	bool lazy_refcounts;
	bool extended_l2;     /* cluster_bytes >= 16384, version 3 */
	u32 compression_type; /* 0 zlib, 1 zstd */
	enum prealloc preallocation;
	const char *backing_file;		/* NULL: none; <= 1023 bytes */
	const char *backing_format;		/* written as a header extension; NULL: none */
	const char *data_file;			/* name of an external data file; NULL: none */
	struct image *data;			/* that file, open, writable and empty; lent */
	bool data_file_raw;			/* it stays valid as a raw image */
	const struct qcow2_crypt_create *crypt; /* encryption (crypt.h); NULL: none */
};
/* Write a fresh image into an empty, open, writable file.  Layout: cluster 0
 * header, 1 refcount table, 2 first refcount block, 3 L1 table (as far as they
 * fit in one cluster each).  Durable on return.  Suspends. */
int qcow2_create(struct fiber *f, struct image *file, const struct qcow2_create_options *opt,
		 struct error *err);
/* Would it take these options?  Touches no file. */
int qcow2_create_judge(const struct qcow2_create_options *opt, struct error *err);
/* The same from a list of options: the driver's create (block/create.h). */
int qcow2_create_request(struct fiber *f, const struct create_request *req, struct error *err);
extern const struct create_option qcow2_create_table[];

/* Write whole guest clusters (the last one of the disk may be short) compressed;
 * what does not get smaller is written as it is.  Clusters of the request are
 * compressed side by side on all cores; so are those of other calls that run
 * meanwhile on other fibers, and yet their data lie in the file in the order of
 * the calls.  -EIO if one of the clusters is allocated already, -EINVAL if they
 * are not whole, -ENOTSUP for encrypted images and external data files.  Suspends. */
int qcow2_write_compressed(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			   unsigned n);

/* Let everything show the backing image again: no cluster stays in use but for
 * snapshots.  Durable on return; crash safe.  No other request may be under way.
 * Suspends. */
int qcow2_make_empty(struct fiber *f, struct image *img);

/* What `info` shows. */
struct qcow2_info {
	u32 version, cluster_bytes, refcount_bits;
	bool lazy_refcounts, dirty, corrupt, extended_l2;
	u32 compression_type;  /* 0 zlib, 1 zstd */
	const char *data_file; /* external one as the header names it; NULL: none */
	bool data_file_raw;
	u32 snapshots;
};
void qcow2_get_info(struct image *img, struct qcow2_info *out); /* img->driver is qcow2 */

/* Name another backing file (NULL or "": none) and its format (NULL: not named),
 * durably; what is open stays open.  -EINVAL: too long; -ENOSPC: no room in the
 * header.  Suspends. */
int qcow2_set_backing(struct fiber *f, struct image *img, const char *name, const char *format,
		      struct error *err);
/* What would qcow2_set_backing say?  Suspends. */
int qcow2_judge_backing(struct fiber *f, struct image *img, const char *name, const char *format,
			struct error *err);

#endif
