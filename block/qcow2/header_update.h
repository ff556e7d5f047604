/* Changing what the header cluster says beside its fixed fields: extensions, the
 * name of the backing file, the version, feature bits. */
#ifndef BLOCK_QCOW2_HEADER_UPDATE_H
#define BLOCK_QCOW2_HEADER_UPDATE_H

#include "block/qcow2/state.h"

struct header_ext {
	u32 type;
	const void *data; /* NULL: the extension goes away */
	u32 bytes;
};

struct header_bits {
	u64 set, clear;
};

struct header_change {
	bool judge_only; /* would there be room?  Nothing is written */
	u32 version;	 /* 0: stays */
	struct header_bits incompatible, compatible, autoclear;
	bool set_backing;
	const char *backing; /* with set_backing; NULL: none */
	/* Those not named here stay as they are, known or not. */
	const struct header_ext *exts;
	unsigned n;
};

/* Write a header cluster with these changes, as safe against a power cut as the
 * format allows (see header_update.c), and durable on return.  Pending metadata
 * is not touched.  -ENOSPC: no room for it in the cluster.  Suspends. */
int header_update(struct fiber *f, struct qcow2 *q, const struct header_change *change);

#endif
