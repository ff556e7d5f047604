/* The parts of `amend`; see amend.c.  All suspend. */
#ifndef BLOCK_QCOW2_AMEND_H
#define BLOCK_QCOW2_AMEND_H

#include "block/amend.h"
#include "block/create.h"
#include "block/qcow2/parts.h"

extern const struct create_option qcow2_amend_options[];
int qcow2_amend(struct fiber *f, struct image *img, const struct amend_request *req,
		struct error *err);

/* --- downgrade.c --- */
int qcow2_downgrade(struct fiber *f, struct qcow2 *q, const struct amend_request *req,
		    struct error *err);

/* --- refcount_width.c --- */
/* Refcounts of 1 << order bits from now on. */
int refcount_set_width(struct fiber *f, struct qcow2 *q, u32 order, const struct amend_request *req,
		       struct error *err);

#endif
