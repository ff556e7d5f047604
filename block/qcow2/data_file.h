/* External data files; see data_file.c.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_DATA_FILE_H
#define BLOCK_QCOW2_DATA_FILE_H

#include "block/qcow2/state.h"

/* Set q->data, and open the external data file if the image has one. */
int data_file_open(struct fiber *f, struct qcow2 *q, const struct open_policy *policy,
		   struct error *err);
int data_file_close(struct fiber *f, struct qcow2 *q);
/* The map is about to call these guest bytes zeros: does what the data file needs
 * for that.  unmap: its space is not needed any more.  Suspends. */
int data_file_drop(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes, bool unmap);

#endif
