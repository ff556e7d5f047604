/* What a check of an image is asked and answers. */
#ifndef BLOCK_CHECK_H
#define BLOCK_CHECK_H

#include "base/base.h"

/* Reported by check.  Counts of clusters, as the reference prints them. */
struct check_result {
	u64 corruptions, leaks, check_errors;
	u64 corruptions_fixed, leaks_fixed;
	u64 total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
	u64 image_end_bytes;
};
struct check_request {
	bool fix_leaks, fix_errors;
	bool in_place; /* mend single refcounts rather than make all anew */
	/* One line of output, without newline; may be NULL. */
	void (*line)(void *arg, const char *text);
	void *arg;
	struct check_result result;
};

#endif
