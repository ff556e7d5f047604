/* Compressed clusters inside an image: descriptors, reading, packing.
 *
 * A descriptor names the first byte of the data and the 512-byte sectors it
 * touches.  Data of several clusters lie in one host cluster, back to back; each
 * raises the refcount of every host cluster it touches by one.  Compressed data
 * never changes in place.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_COMPRESS_H
#define BLOCK_QCOW2_COMPRESS_H

#include "block/qcow2/codec.h"
#include "block/qcow2/state.h"

struct compressed {
	u64 hoff;  /* first byte of the data */
	u64 bytes; /* to the end of the last sector: the data may end before */
};
struct compressed compressed_decode(const struct qcow2 *q, u64 entry);
/* Whether a descriptor can say this; then *entry says it. */
bool compressed_encode(const struct qcow2 *q, u64 hoff, u64 bytes, u64 *entry);
/* The host clusters that hold a reference each: the first one's place, how many. */
void compressed_span(const struct qcow2 *q, u64 entry, u64 *hoff, u64 *clusters);
/* Free what an L2 entry names, compressed or not, if anything (I2). */
void entry_free(struct qcow2 *q, u64 entry);
enum codec_type compression_type(const struct qcow2 *q);

/* --- inflate.c --- */
/* Read guest bytes of one cluster that was compressed when the map was asked;
 * an image_transfer_fn.  -EIO if it cannot be inflated.  Suspends. */
int compressed_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		    unsigned n);
/* The same for one cluster of several: they are inflated side by side. */
int compressed_read_part(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			 unsigned n);
/* New data lies at these host bytes: forget what was inflated from there. */
void inflate_forget(struct qcow2 *q, u64 hoff, u64 bytes);
void inflate_fini(struct qcow2 *q);

/* --- pack.c --- */
/* No more data goes into these host clusters: they are being freed. */
void pack_close(struct qcow2 *q, u64 hoff, u64 clusters);
void pack_fini(struct qcow2 *q);

#endif
