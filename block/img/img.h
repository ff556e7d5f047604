/* cowimg, the image tool: what its subcommands share.
 *
 * Every subcommand runs as one fiber of one loop, to completion.  Words of
 * messages and exit codes are qemu-img's: scripts depend on them. */
#ifndef BLOCK_IMG_IMG_H
#define BLOCK_IMG_IMG_H

#include "base/base.h"
#include "base/error.h"
#include "base/fiber.h"
#include "block/secret.h"
#include "block/unlock.h"

#include <getopt.h>
#include <stdio.h>

struct image;
struct json_t;
struct open_policy;
struct opts;

enum img_exit { IMG_OK, IMG_ERROR, IMG_CORRUPT, IMG_LEAKS, IMG_NOT_SUPPORTED = 63 };

/* A run of the tool. */
struct img {
	const char *program; /* base name of argv[0], for messages */
	struct fiber *f;
	bool quiet;
	struct secrets secrets;	     /* of --object */
	struct unlock_policy unlock; /* these, else the terminal */
	int bad_object;		     /* exit code for a wrong --object: IMG_ERROR, or compare's */
	const bool *stop;	     /* [atomic] between img_progress_begin and _end, else NULL */
};

struct img_command {
	const char *name, *usage;
	/* argv[0] is the subcommand; returns the exit code. */
	int (*run)(struct img *ctx, int argc, char **argv);
};
extern const struct img_command img_commands[]; /* ends with name NULL */

int img_amend(struct img *ctx, int argc, char **argv);
int img_bitmap(struct img *ctx, int argc, char **argv);
int img_convert(struct img *ctx, int argc, char **argv);
int img_create(struct img *ctx, int argc, char **argv);
int img_dd(struct img *ctx, int argc, char **argv);
int img_info(struct img *ctx, int argc, char **argv);
int img_commit(struct img *ctx, int argc, char **argv);
int img_compare(struct img *ctx, int argc, char **argv);
int img_map(struct img *ctx, int argc, char **argv);
int img_measure(struct img *ctx, int argc, char **argv);
int img_serve(struct img *ctx, int argc, char **argv);
int img_bench(struct img *ctx, int argc, char **argv);
int img_check(struct img *ctx, int argc, char **argv);
int img_rebase(struct img *ctx, int argc, char **argv);
int img_resize(struct img *ctx, int argc, char **argv);
int img_snapshot(struct img *ctx, int argc, char **argv);

/* "PROGRAM: message" on stderr; returns IMG_ERROR. */
int img_error(struct img *ctx, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The same, and where to find help. */
int img_usage_error(struct img *ctx, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* --- help.c --- */
void img_print_version(struct img *ctx);
void img_print_help(struct img *ctx);

/* printf unless -q was given. */
void img_say(struct img *ctx, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* getopt_long with errors in our words: the option, -1 at the end, or '?' after a
 * message.  options always contains
 * -h/--help, which prints the help and ends the program. */
int img_getopt(struct img *ctx, int argc, char **argv, const char *letters,
	       const struct option *options);

/* --- open.c: every image of a command line is opened here --- */

/* How, as the options that subcommands share say it. */
struct img_source {
	const char *format;   /* -f; NULL: probe */
	const char *cache;    /* -T or -t; NULL: the default */
	bool cache_is_target; /* words of the message for a wrong -t */
	bool image_opts;      /* --image-opts: the name is a list of options */
	bool share;	      /* -U */
	bool writable, no_backing, check_only, discard;
	bool metadata_only;   /* encrypted images stay locked, nobody is asked */
	const char *snapshot; /* -l: show this one */
};
/* What --image-opts and -U are for getopt; put the line into the list of
 * options and hand letters that you do not know to img_source_option. */
enum { IMG_OPTION_OBJECT = 1000, IMG_OPTION_IMAGE_OPTS };
#define IMG_SOURCE_OPTIONS                                                                         \
	{"image-opts", no_argument, NULL, IMG_OPTION_IMAGE_OPTS},                                  \
		{"force-share", no_argument, NULL, 'U'},                                           \
	{                                                                                          \
		"format", required_argument, NULL, 'f'                                             \
	}
/* Takes 'f', 'U', 'T', 't' and --image-opts; IMG_ERROR after a message, or
 * (without one) for a letter it does not know. */
int img_source_option(struct img *ctx, struct img_source *src, int letter);
/* Open; on failure a message and IMG_ERROR.  Close with image_close. */
int img_open(struct img *ctx, const char *name, const struct img_source *src, struct image **out);
/* Close what was written to; a message if that fails and `code` is IMG_OK. */
int img_close(struct img *ctx, struct image *img, int code);

/* --- passphrase.c --- */
/* --object TYPE,id=ID,...: what images may refer to.  img_getopt takes it from all
 * subcommands. */
int img_object(struct img *ctx, const char *text);
/* The terminal's answer: an unlock_policy's ask; arg is the struct img. */
int img_ask(struct fiber *f, void *arg, const struct unlock_question *what, struct key *out,
	    struct error *err);

/* "64M", "1.5G", "100b", "4096": bytes.  -EINVAL: no size; -ERANGE: beyond 2^63-1. */
int img_parse_size(const char *text, u64 *bytes);
/* Add the text of one -o to the list; "help" or "?" among it sets *help. */
int img_add_options(struct img *ctx, struct opts *options, const char *text, bool *help);

int img_parse_cache(const char *text, struct open_policy *policy);

#endif
