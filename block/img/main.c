/* cowimg: make, look at, check, change and serve disk images.
 *
 * The program's name in messages is argv[0]'s base name, so that scripts which
 * call it by a link read what they expect. */
#include "block/img/img.h"

#include "base/log.h"
#include "base/loop.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

const struct img_command img_commands[] = {
	{"amend",
	 "amend [--object objectdef] [--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force] -o "
	 "options filename",
	 img_amend},
	{"bench",
	 "bench [--object objectdef] [--image-opts] [-c count] [-d depth] [-f fmt] "
	 "[--flush-interval=flush_interval] [-i aio] [-n] [--no-drain] [-o offset] "
	 "[--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename",
	 img_bench},
	{"bitmap",
	 "bitmap (--merge SOURCE | --add | --remove | --clear | --enable | --disable)... "
	 "[-b source_file [-F source_fmt]] [-g granularity] [--object objectdef] [--image-opts | "
	 "-f fmt] filename bitmap",
	 img_bitmap},
	{"check",
	 "check [--object objectdef] [--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | "
	 "all]] [-T src_cache] [-U] filename",
	 img_check},
	{"commit",
	 "commit [--object objectdef] [--image-opts] [-q] [-f fmt] [-t cache] [-b base] "
	 "[-r rate_limit] [-d] [-p] filename",
	 img_commit},
	{"compare",
	 "compare [--object objectdef] [--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] "
	 "[-s] [-U] filename1 filename2",
	 img_compare},
	{"convert",
	 "convert [--object objectdef] [--image-opts] [--target-image-opts] [--target-is-zero] "
	 "[--bitmaps [--skip-broken-bitmaps]] [-U] [-C] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] "
	 "[-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] "
	 "[-l snapshot_param] [-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] "
	 "[--salvage] filename [filename2 [...]] output_filename",
	 img_convert},
	{"create",
	 "create [--object objectdef] [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] "
	 "[-o options] filename [size]",
	 img_create},
	{"dd",
	 "dd [--object objectdef] [--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] "
	 "[count=blocks] [skip=blocks] if=input of=output",
	 img_dd},
	{"info",
	 "info [--object objectdef] [--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] "
	 "[-U] filename",
	 img_info},
	{"map",
	 "map [--object objectdef] [--image-opts] [-f fmt] [-s offset | --start-offset=offset] "
	 "[-l len | --max-length=len] [--output=ofmt] [-U] filename",
	 img_map},
	{"measure",
	 "measure [--output=ofmt] [-O output_fmt] [-o options] [--size N | [--object objectdef] "
	 "[--image-opts] [-f fmt] [-l snapshot_param] [-U] filename]",
	 img_measure},
	{"rebase",
	 "rebase [--object objectdef] [--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] "
	 "[-p] [-u] -b backing_file [-F backing_fmt] filename",
	 img_rebase},
	{"resize",
	 "resize [--object objectdef] [--image-opts] [-f fmt] [--preallocation=prealloc] [-q] "
	 "[--shrink] filename [+ | -]size",
	 img_resize},
	{"serve",
	 "serve [--object objectdef] [--image-opts] [-f fmt] [-r] [-U] [-t cache] [-k socket | -b "
	 "address -p port] [-x export_name] [-D description] [-e max_clients] [-l snapshot_param] "
	 "[--discard=mode] [--persistent] [--fork] [--pid-file=file] filename",
	 img_serve},
	{"snapshot",
	 "snapshot [--object objectdef] [--image-opts] [-U] [-q] [-l | -a snapshot | -c snapshot | "
	 "-d snapshot | -e snapshot [-O output_fmt] [-o options] [-p] | --tree [--output=ofmt] | "
	 "--verify [-p] [snapshot]] filename [output_filename]",
	 img_snapshot},
	{0},
};

static void vmessage(struct img *ctx, const char *fmt, va_list ap)
{
	fflush(stdout);
	fprintf(stderr, "%s: ", ctx->program);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

int img_error(struct img *ctx, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vmessage(ctx, fmt, ap);
	va_end(ap);
	return IMG_ERROR;
}

int img_usage_error(struct img *ctx, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vmessage(ctx, fmt, ap);
	va_end(ap);
	fprintf(stderr, "Try '%s --help' for more information\n", ctx->program);
	return IMG_ERROR;
}

void img_say(struct img *ctx, const char *fmt, ...)
{
	va_list ap;

	if (ctx->quiet)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
}

struct main_run {
	struct img ctx;
	const struct img_command *command;
	int argc, code;
	char **argv;
};

static void main_fiber(struct fiber *f, void *arg)
{
	struct main_run *run = arg;

	run->ctx.f = f;
	run->ctx.bad_object = IMG_ERROR;
	run->ctx.unlock = (struct unlock_policy){
		.secrets = &run->ctx.secrets, .ask = img_ask, .arg = &run->ctx};
	run->code = run->command->run(&run->ctx, run->argc, run->argv);
	secrets_fini(&run->ctx.secrets);
}

/* The subcommand's place in argv, after the standard options; 0 if there is none,
 * with *code set when all is said. */
static int standard_options(struct img *ctx, int argc, char **argv, int *code)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{"version", no_argument, NULL, 'V'},
						{"trace", required_argument, NULL, 'T'},
						{0}};
	char *rest, *area;
	int c;

	*code = IMG_ERROR;
	while ((c = img_getopt(ctx, argc, argv, "+:hVT:", options)) != -1) {
		switch (c) {
		case 'V': *code = IMG_OK; return img_print_version(ctx), 0;
		case 'T':
			rest = optarg;
			while ((area = strsep(&rest, ",")))
				if (trace_set(area, true) < 0)
					return img_error(ctx, "no trace area '%s'", area), 0;
			break;
		default: return 0;
		}
	}
	if (optind < argc)
		return optind;
	img_usage_error(ctx, "Not enough arguments");
	return 0;
}

int main(int argc, char **argv)
{
	struct main_run run = {0};
	struct error err = {0};
	struct loop *loop;
	const char *slash;
	int at;

	slash = strrchr(argv[0], '/');
	run.ctx.program = slash ? slash + 1 : argv[0];
	log_set_program(run.ctx.program);
	signal(SIGPIPE, SIG_IGN);
	at = standard_options(&run.ctx, argc, argv, &run.code);
	if (!at)
		return run.code;
	for (run.command = img_commands; run.command->name; run.command++)
		if (!strcmp(run.command->name, argv[at]))
			break;
	if (!run.command->name)
		return img_usage_error(&run.ctx, "Command not found: %s", argv[at]);
	run.argc = argc - at;
	run.argv = argv + at;
	optind = 0; /* getopt starts anew */
	if (loop_new(&loop, "main", LOOP_AUTO, &err) < 0 ||
	    loop_run_fiber(loop, main_fiber, &run) < 0)
		return img_error(&run.ctx, "%s", err.text);
	loop_free(loop);
	if (fflush(stdout) || ferror(stdout))
		return img_error(&run.ctx, "cannot write to standard output");
	return run.code;
}
