/* Is the VM state of a snapshot what was written?  Its checksums say (vmstate_format.h).
 *
 * Memory stays bounded whatever the state claims to be: tables of checksums and parts
 * are read a piece at a time, and holes are not read at all.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_VMSTATE_VERIFY_H
#define BLOCK_QCOW2_VMSTATE_VERIFY_H

#include "block/image.h"

struct vmstate_verify {
	/* A part, or `bytes` of memory that start at byte `at` of it, is not what was
	 * written, or (ret not -EBADMSG) cannot be read.  part NULL: memory. */
	void (*damage)(void *arg, const char *part, u64 at, u64 bytes, int ret);
	/* So much of so much is done; false: stop. */
	bool (*progress)(void *arg, u64 done, u64 total);
	void *arg;
	u64 checked; /* bytes of parts and of memory that is not all zeros */
};

/* The VM state of the snapshot that a read-only image shows.  0, also with damage; -ENOTSUP:
 * not one of cowvm; -EINVAL: of a version that we do not know; -ECANCELED.  Suspends. */
int qcow2_vmstate_verify(struct fiber *f, struct image *img, struct vmstate_verify *v,
			 struct error *err);

#endif
