/* cowimg --help: every subcommand, every parameter, every format.
 *
 * cowimg(1) says the same at length; tests/image/test_manual.py keeps the two and the
 * option parsers in step. */
#include "block/img/img.h"

#include <stdio.h>

static const char common[] =
	"Command parameters:\n"
	"  'filename' is a disk image filename\n"
	"  'objectdef' is 'secret,id=ID,data=TEXT' or 'secret,id=ID,file=NAME': a passphrase\n"
	"    that options of images refer to by its id\n"
	"  'fmt' is the disk image format. It is guessed automatically in most cases\n"
	"  'cache' is the cache mode of the image that is written: 'none', 'writeback'\n"
	"    (default, except for convert), 'writethrough', 'directsync' or 'unsafe'\n"
	"    (default for convert)\n"
	"  'src_cache' is the cache mode of images that are read, with the same choices\n"
	"  'size' is the disk image size in bytes. Optional suffixes 'k' or 'K' (kilobyte,\n"
	"    1024), 'M' (megabyte), 'G' (gigabyte), 'T' (terabyte), 'P' (petabyte) and 'E'\n"
	"    (exabyte) are supported. 'b' is ignored.\n"
	"  'output_filename' is the image to be made, 'output_fmt' its format\n"
	"  'options' is a comma separated list of name=value pairs that the format knows:\n"
	"    use '-o help' for a list\n"
	"  'snapshot_param' is an internal snapshot: its id or tag, or\n"
	"    'snapshot.id=[ID],snapshot.name=[NAME]'\n"
	"  'rate_limit' is how many bytes are written in a second\n"
	"  'ofmt' is 'human' for human-readable output (default) or 'json' for JSON output\n"
	"  '--object' makes an object, before any image is opened\n"
	"  '--image-opts' means that 'filename' is a list of options, as\n"
	"    driver=qcow2,file.filename=a.qcow2\n"
	"  '-c' indicates that the target image must be compressed (qcow2 only)\n"
	"  '-u' takes the backing file's name as it is, without opening the file\n"
	"  '-h' with or without a command shows this help and lists the supported formats\n"
	"  '-p' shows progress; without it SIGUSR1 asks for it once\n"
	"  '-q' use quiet mode: no output except errors\n"
	"  '-S' is how many zero bytes in a row become a hole in the target (default 4k);\n"
	"    0: none do, and the target is written whole\n"
	"  '-U' opens the image in shared mode, even if another process writes it\n"
	"  '-n' writes to a target that is there instead of making one\n"
	"  Long forms: --format is -f, --force-share is -U, --quiet is -q (create)\n";

static const char of_commands[] =
	"\nParameters to amend subcommand:\n"
	"  '--force' allows to make an encrypted image unreadable for ever\n"
	"\nParameters to bench subcommand:\n"
	"  '-w' sends writes of 'pattern' bytes instead of reads; 'flush_interval' writes are\n"
	"    followed by a flush, which waits for them unless '--no-drain' is given\n"
	"  '-i' is threads, native or io_uring, '-n' the same as '-i native'\n"
	"\nParameters to bitmap subcommand:\n"
	"  'bitmap' is the name of the bitmap to manipulate, through one or more actions\n"
	"  '-g' (--granularity) sets the granularity for '--add'\n"
	"  '-b' (--source-file) and '-F' (--source-format) tell '--merge' to find the source\n"
	"    bitmap in another file\n"
	"\nParameters to check subcommand:\n"
	"  '-r' (--repair) tries to repair: 'leaks' frees leaked clusters, 'all' fixes all\n"
	"    kinds of errors, with a higher risk of choosing the wrong fix\n"
	"\nParameters to commit subcommand:\n"
	"  '-b' merges into this image of the chain, '-d' leaves the overlay as it is\n"
	"\nParameters to compare subcommand:\n"
	"  '-f' first image format, '-F' second image format\n"
	"  '-s' strict mode: fail on different size or allocation\n"
	"\nParameters to convert subcommand:\n"
	"  '--bitmaps' copies persistent bitmaps, '--skip-broken-bitmaps' all but broken ones\n"
	"  '-m' is how many parts are copied at a time (default 8)\n"
	"  '-W' allows to write to the target out of order\n"
	"  '-C' lets the host copy\n"
	"  '--salvage' goes on after read errors, with zeros\n"
	"  '--target-is-zero' promises that an existing target reads as zeros\n"
	"  '--target-image-opts' is '--image-opts' for the target, which must exist;\n"
	"    --source-image-opts is another name of --image-opts\n"
	"\nParameters to dd subcommand:\n"
	"  'bs=BYTES' read and write up to BYTES bytes at a time (default: 512)\n"
	"  'count=N' copy only N input blocks, 'skip=N' leave out the first N\n"
	"  'if=FILE' read from FILE, 'of=FILE' write to FILE\n"
	"\nParameters to resize subcommand:\n"
	"  'prealloc' is off, metadata, falloc or full, for what is added\n"
	"  '--shrink' allows to cut off the end\n"
	"\nParameters to serve subcommand:\n"
	"  '-k' (--socket) listens on a unix socket, '-b' (--bind) and '-p' (--port) on a\n"
	"    loopback address (default 127.0.0.1 and 10809)\n"
	"  '-r' (--read-only) refuses writes, '-t' is also --cache\n"
	"  '-x' (--export-name) and '-D' (--description) are told to clients\n"
	"  '-e' (--shared) is how many clients may be there at a time (default 1; 0: any)\n"
	"  '-l' (--snapshot, --load-snapshot) serves an internal snapshot, read-only\n"
	"  '--discard' is ignore (off) or unmap (on)\n"
	"  '--persistent' stays after the last client has left\n"
	"  '--fork' returns when clients may connect; '--ready-fd=N' writes a byte to the\n"
	"    descriptor then; '--pid-file' holds the process's number\n"
	"\nParameters to snapshot subcommand:\n"
	"  '-l' lists all snapshots, '-c' creates one, '-a' applies one (reverts the disk),\n"
	"    '-d' deletes one\n"
	"  '-e' extracts one as an image of its own, of the format and options of '-O', '-o'\n"
	"  '--tree' shows what each holds alone and shares\n"
	"  '--verify' compares the VM state of this one, or of all, with its checksums\n";

static const char formats[] =
	"file host_device luks nbd nbd+tcp nbd+unix null-aio null-co qcow2 raw";

void img_print_version(struct img *ctx)
{
	printf("%s version %s\n", ctx->program, COWVM_VERSION);
}

void img_print_help(struct img *ctx)
{
	img_print_version(ctx);
	printf("usage: %s [standard options] command [command options]\n"
	       "Disk images that copy on write\n\n"
	       "    '-h', '--help'       display this help and exit\n"
	       "    '-V', '--version'    output version information and exit\n"
	       "    '-T', '--trace'      areas to trace, separated by commas\n\n"
	       "Command syntax:\n",
	       ctx->program);
	for (const struct img_command *c = img_commands; c->name; c++)
		printf("  %s\n", c->usage);
	printf("\n%s%s\nSupported formats: %s\n", common, of_commands, formats);
}
