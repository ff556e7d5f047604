/* Making image files from option lists: what `create`, `convert` and the VM's
 * overlays share.  Which options a format takes is a table of its driver, and so
 * are the help text and the "Formatting" line.  Thread: the loop's. */
#ifndef BLOCK_CREATE_H
#define BLOCK_CREATE_H

#include "base/opts.h"
#include "block/image.h"

enum option_type { OPTION_STR, OPTION_BOOL, OPTION_NUM, OPTION_SIZE };

/* A table of these ends with name NULL; its order is that of the "Formatting"
 * line. */
struct create_option {
	const char *name;
	enum option_type type;
	const char *help;
	const char *value; /* default, printed when not given; NULL: printed when given */
};

/* What to make.  Fill the first part, call image_create_prepare, then perhaps
 * image_create_text, then image_create_run; or image_create for all of it. */
struct create_request {
	const char *format, *name;	    /* lent */
	struct opts options;		    /* size, backing_file, backing_fmt among them */
	bool unsafe_backing;		    /* do not open the backing file */
	enum cache_mode cache;		    /* how the new file is written */
	const struct unlock_policy *unlock; /* passphrases; NULL: none */
	const bool *stop;		    /* set meanwhile: give up; NULL: never */

	/* By image_create_prepare: */
	const struct image_driver *driver;
	u64 bytes;
	const char *guessed_format; /* of the backing file: nobody named it; else NULL */
};
void image_create_init(struct create_request *req, const char *format, const char *name);
void image_create_fini(struct create_request *req);

/* Is there such a format, and are the options of its kind?  The first part of: */
int image_create_check(struct create_request *req, struct error *err);
/* Judge format and options and open the backing file: its format and size are put
 * among the options where they were not given.  Touches no file.  Suspends. */
int image_create_prepare(struct fiber *f, struct create_request *req, struct error *err);
/* "fmt=qcow2 cluster_size=65536 ..." (free() it). */
char *image_create_text(const struct create_request *req);
/* Make the file; what cannot be finished is removed again.  Suspends. */
int image_create_run(struct fiber *f, struct create_request *req, struct error *err);
int image_create(struct fiber *f, struct create_request *req, struct error *err);

/* The list of options as -o help prints it, sorted; with_file: including those of
 * the host file (free() it). */
char *image_create_help(const struct image_driver *driver, bool with_file);
/* The same for any table; with is NULL or a second one. */
char *create_options_help(const struct create_option *table, const struct create_option *with);
/* Are these words of the table (or of `with`), with values of their types? */
int create_options_check(const struct opts *o, const struct create_option *table,
			 const struct create_option *with, struct error *err);

/* Does the format itself take an option of this name? */
bool create_option_is_known(const struct image_driver *driver, const char *name);

/* Values, for drivers; *out is left alone where none was given.  Errors name the
 * parameter. */
int create_get_size(const struct opts *o, const char *name, u64 *out, struct error *err);
int create_get_prealloc(const struct opts *o, enum prealloc *out, struct error *err);

/* For drivers: an empty host file of this size as the request wants it. */
int create_host_file(struct fiber *f, const struct create_request *req, const char *path, u64 bytes,
		     struct image **out, struct error *err);
/* Close it, and report a late error. */
int create_close_file(struct fiber *f, struct image *file, int ret, struct error *err);

#endif
