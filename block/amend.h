/* Changing what an image was made with: `cowimg amend`. */
#ifndef BLOCK_AMEND_H
#define BLOCK_AMEND_H

#include "base/error.h"
#include "base/opts.h"
#include "block/image.h"

struct amend_request {
	const struct opts *options; /* of driver->amend_options, with values of their types */
	bool force;		    /* do what may lock people out */
	const struct unlock_policy *unlock; /* secrets that options name; NULL: none */
	/* How far it is; may be NULL. */
	void (*progress)(void *arg, u64 done, u64 total);
	void *arg;
};

static inline void amend_progress(const struct amend_request *req, u64 done, u64 total)
{
	if (req->progress)
		req->progress(req->arg, done, total);
}

#endif
