/* cowimg convert: what the command line says, for convert_run.c. */
#ifndef BLOCK_IMG_CONVERT_H
#define BLOCK_IMG_CONVERT_H

#include "base/opts.h"
#include "block/img/img.h"

struct convert {
	struct img *ctx;
	char **names; /* of the sources */
	unsigned n_names;
	const char *target;
	struct img_source source;
	const char *out_format, *out_cache; /* NULL: raw; unsafe */
	struct opts options;		    /* -o */
	const char *backing, *backing_format;
	const char *snapshot; /* -l */
	u64 sparse_bytes, rate;
	unsigned workers;
	bool skip_create, out_image_opts, target_is_zero, compress, offload, salvage;
	bool out_of_order, progress, bitmaps, skip_broken_bitmaps, sparse_given, help;
};

int convert_run(struct convert *c);
/* -o help: the options of the format. */
int convert_help(struct convert *c);

/* Take the name of a file away, closed by now, that we made: it is not complete. */
void img_remove_name(struct img *ctx, const char *name);

#endif
