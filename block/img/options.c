/* Words on cowimg's command line: sizes, -o lists, cache modes. */
#include "block/img/img.h"

#include "base/opts.h"
#include "block/image.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#define OPTIONS_MOST 40

/* The options, and --object, which all take and which has done its work here. */
static int next_option(struct img *ctx, int argc, char **argv, const char *letters,
		       const struct option *options)
{
	const struct option object = {"object", required_argument, NULL, IMG_OPTION_OBJECT};
	struct option all[OPTIONS_MOST + 2] = {0};
	unsigned n = 0;
	int c;

	for (; options[n].name; n++) {
		assert(n < OPTIONS_MOST);
		all[n] = options[n];
	}
	all[n] = object;
	while ((c = getopt_long(argc, argv, letters, all, NULL)) == IMG_OPTION_OBJECT)
		if (img_object(ctx, optarg)) {
			secrets_fini(&ctx->secrets);
			exit(ctx->bad_object);
		}
	return c;
}

int img_getopt(struct img *ctx, int argc, char **argv, const char *letters,
	       const struct option *options)
{
	int at = optind ? optind : 1, c;

	opterr = 0;
	c = next_option(ctx, argc, argv, letters, options);
	if (c == 'h') {
		img_print_help(ctx);
		exit(IMG_OK);
	}
	if (c == ':') {
		img_usage_error(ctx, "missing argument for option '%s'", argv[optind - 1]);
		return '?';
	}
	if (c == '?')
		img_usage_error(ctx, "unrecognized option '%s'",
				optind > at ? argv[optind - 1] : argv[at]);
	return c;
}

/* Whole part and fraction are kept apart, so that 2^63 - 1 comes through exactly. */
int img_parse_size(const char *text, u64 *bytes)
{
	static const char suffixes[] = "bkmgtpe";
	const char *suffix;
	double fraction = 0;
	unsigned shift = 0;
	char *end;
	u64 whole;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	whole = strtoull(text, &end,
			 text[0] == '0' && tolower((unsigned char)text[1]) == 'x' ? 16 : 10);
	if (errno == ERANGE)
		return -ERANGE;
	if (*end == '.') {
		fraction = strtod(end, &end);
		if (isnan(fraction) || fraction < 0 || fraction >= 1)
			return -EINVAL;
	}
	if (*end) {
		suffix = strchr(suffixes, tolower((unsigned char)*end));
		if (!suffix || end[1])
			return -EINVAL;
		shift = 10 * (unsigned)(suffix - suffixes);
	}
	if (whole > (u64)INT64_MAX >> shift)
		return -ERANGE;
	*bytes = (whole << shift) + (u64)(fraction * (double)((u64)1 << shift));
	return *bytes > INT64_MAX ? -ERANGE : 0;
}

/* Does "help" or "?" stand alone among the items? */
static bool asks_for_help(const char *text)
{
	while (*text) {
		size_t n = strcspn(text, ",");

		if ((n == 4 && !strncmp(text, "help", 4)) || (n == 1 && *text == '?'))
			return true;
		text += n;
		text += *text == ',';
	}
	return false;
}

/* An empty item at the end would swallow the next list where lists are joined. */
static bool is_list(const char *text)
{
	size_t n = strlen(text), commas = 0;

	while (commas < n && text[n - commas - 1] == ',')
		commas++;
	return n && *text != ',' && commas % 2 == 0;
}

int img_add_options(struct img *ctx, struct opts *options, const char *text, bool *help)
{
	struct error err = {0};

	if (!is_list(text))
		return img_error(ctx, "Invalid option list: %s", text);
	if (asks_for_help(text)) {
		*help = true;
		return IMG_OK;
	}
	if (opts_append(options, text, NULL, &err) < 0)
		return img_error(ctx, "%s", err.text);
	return IMG_OK;
}

int img_parse_cache(const char *text, struct open_policy *policy)
{
	static const char *const names[] = {[CACHE_WRITEBACK] = "writeback",
					    [CACHE_WRITETHROUGH] = "writethrough",
					    [CACHE_NONE] = "none",
					    [CACHE_DIRECTSYNC] = "directsync",
					    [CACHE_UNSAFE] = "unsafe"};

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(text, names[i])) {
			policy->cache = i;
			return 0;
		}
	return -EINVAL;
}
