/* Images: names, options, probing, and the opening of backing chains.
 *
 * A name is a path, "file:path", or "json:{...}"; options (--image-opts) say the
 * same in a list.  What both describe is a tree: a format over a file, which may
 * be a format over a file again.  Backing images are opened one after the other,
 * only when the policy allows it, always read-only, and never twice in one
 * chain.  An option that nobody takes is an error.
 * Thread: the image's loop. */
#include "base/log.h"
#include "base/loop.h"
#include "block/driver.h"
#include "block/file.h"
#include "block/names.h"

#include <errno.h>
#include <sys/stat.h>

#define HEAD_BYTES    512 /* what probing sees */
#define NEST_MOST     8	  /* formats over formats that a name may ask for */
#define PREFIX_MOST   8u
#define STACK_RESERVE (24 * KiB)

/* Options of every image.  What they say goes into the policy. */
#define COMMON_OPTIONS                                                                             \
	"driver node-name read-only auto-read-only force-share discard detect-zeroes "             \
	"cache.direct cache.no-flush file."

static const struct image_protocol *const protocols[] = {
	&file_protocol,	    &host_device_protocol, &nbd_protocol,     &nbd_tcp_protocol,
	&nbd_unix_protocol, &null_aio_protocol,	   &null_co_protocol,
};

/* One image to open, without its backing. */
struct node {
	const char *name;	   /* NULL: options say it */
	struct opts opts;	   /* this image's, what is below it included */
	struct open_policy policy; /* policy.options is &opts */
	struct image *file;
};

static int open_nested(struct fiber *f, struct image **out, struct node *node, struct error *err);

static const struct image *lowest(const struct image *img)
{
	while (img->below)
		img = img->below;
	return img;
}

static const struct image_protocol *protocol_find(const char *name, size_t len)
{
	for (unsigned i = 0; i < ARRAY_LEN(protocols); i++)
		if (strlen(protocols[i]->name) == len && !memcmp(protocols[i]->name, name, len))
			return protocols[i];
	return NULL;
}

bool image_is_protocol(const char *name)
{
	return protocol_find(name, strlen(name)) != NULL;
}

/* --- options of every image ------------------------------------------------------- */

static int choice(const struct opts *o, const char *name, const char *const *words, const char *why,
		  struct error *err)
{
	const char *value = opts_get(o, name);
	int at;

	if (!value)
		return -1;
	at = parse_choice(value, words);
	if (at >= 0)
		return at;
	/* The reference names the value in some of these messages only. */
	return strchr(why, ' ') && why[strlen(why) - 1] == ':'
		       ? err_set(err, -EINVAL, "%s %s", why, value)
		       : err_set(err, -EINVAL, "%s", why);
}

static int take_discard(struct node *node, struct error *err)
{
	static const char *const discard[] = {"ignore", "unmap", "off", "on", NULL};
	static const char *const detect[] = {"off", "on", "unmap", NULL};
	int at = choice(&node->opts, "discard", discard, "Invalid discard option", err);

	if (at < -1)
		return at;
	if (at >= 0)
		node->policy.discard = at & 1;
	at = choice(&node->opts, "detect-zeroes", detect, "invalid parameter value:", err);
	if (at < -1)
		return at;
	if (at >= 0)
		node->policy.detect_zeroes = (enum detect_zeroes)at;
	if (node->policy.detect_zeroes == DETECT_ZEROES_UNMAP && !node->policy.discard)
		return err_set(err, -EINVAL,
			       "setting detect-zeroes to unmap is not allowed without setting "
			       "discard operation to unmap");
	return 0;
}

static int take_cache(struct node *node, struct error *err)
{
	struct open_policy *policy = &node->policy;
	bool direct = policy->cache == CACHE_NONE || policy->cache == CACHE_DIRECTSYNC;
	bool no_flush = policy->cache == CACHE_UNSAFE;
	bool sync = policy->cache == CACHE_WRITETHROUGH || policy->cache == CACHE_DIRECTSYNC;
	int ret = opts_get_bool(&node->opts, "cache.direct", &direct, err);

	if (ret == 0)
		ret = opts_get_bool(&node->opts, "cache.no-flush", &no_flush, err);
	if (ret < 0)
		return ret;
	/* Both: the flushes that nobody asked for do no harm. */
	if (direct)
		policy->cache = sync ? CACHE_DIRECTSYNC : CACHE_NONE;
	else if (no_flush)
		policy->cache = CACHE_UNSAFE;
	else
		policy->cache = sync ? CACHE_WRITETHROUGH : CACHE_WRITEBACK;
	return 0;
}

static bool is_node_name(const char *name)
{
	return is_identifier(name) && strlen(name) < 32;
}

/* What the policy can say of them. */
static int take_options(struct node *node, struct error *err)
{
	struct open_policy *policy = &node->policy;
	const char *name = opts_get(&node->opts, "node-name");
	bool read_only = false, ignored;
	int ret = opts_get_bool(&node->opts, "read-only", &read_only, err);

	if (ret == 0)
		ret = opts_get_bool(&node->opts, "auto-read-only", &ignored, err);
	if (ret == 0)
		ret = opts_get_bool(&node->opts, "force-share", &policy->share_writers, err);
	if (ret == 0)
		ret = take_cache(node, err);
	if (ret == 0)
		ret = take_discard(node, err);
	if (ret < 0)
		return ret;
	if (name && !is_node_name(name))
		return err_set(err, -EINVAL, "Invalid node-name: '%s'", name);
	if (read_only && policy->writable)
		return err_set(err, -EACCES, "Block node is read-only");
	if (!policy->format)
		policy->format = opts_get(&node->opts, "driver");
	return 0;
}

static int no_such_node(const char *name, struct error *err)
{
	return err_set(err, -ENODEV, "Cannot find device='%s' nor node-name='%s'", name, name);
}

static int not_supported(const struct image_driver *driver, const char *name, struct error *err)
{
	return err_set(err, -EINVAL, "Block format '%s' does not support the option '%s'",
		       driver->name, name);
}

/* An image's own options that neither its driver nor anybody takes. */
static int refuse_unknown(const struct node *node, const struct image_driver *driver,
			  struct error *err)
{
	for (unsigned i = 0; i < node->opts.n; i++) {
		const char *name = node->opts.v[i].name;

		if (name_in_keys(COMMON_OPTIONS, name))
			continue;
		if (!strncmp(name, "backing", 7) && node->policy.no_backing &&
		    *node->opts.v[i].value)
			return not_supported(driver, name, err);
		if (!strcmp(name, "backing") && *node->opts.v[i].value)
			return no_such_node(node->opts.v[i].value, err);
		if (driver->options && name_in_keys(driver->options, name))
			continue;
		return not_supported(driver, name, err);
	}
	return 0;
}

static int refuse_unknown_of_file(const struct image_protocol *protocol, const struct opts *o,
				  struct error *err)
{
	for (unsigned i = 0; i < o->n; i++) {
		const char *name = o->v[i].name;

		if (!name_in_keys(COMMON_OPTIONS, name) && !name_in_keys(protocol->options, name))
			return err_set(err, -EINVAL,
				       "Block protocol '%s' doesn't support the option '%s'",
				       protocol->name, name);
	}
	return 0;
}

/* --- what is below ------------------------------------------------------------------ */

/* What `info block -n` says of it. */
static void label(struct image *img, const struct node *node)
{
	const char *name = opts_get(&node->opts, "node-name");

	img->node_name = name ? xstrdup(name) : NULL;
	img->cache = (u8)node->policy.cache;
}

static int open_protocol(struct fiber *f, struct image **out, const struct image_protocol *protocol,
			 const char *name, struct node *node, struct error *err)
{
	const struct open_policy *policy = &node->policy;
	int ret = protocol->open(f, out, name, policy, err);

	if (ret < 0)
		return ret;
	ret = refuse_unknown_of_file(protocol, &node->opts, err);
	if (ret < 0) {
		image_close(f, *out);
		return ret;
	}
	label(*out, node);
	if (policy->wrap)
		*out = policy->wrap(*out, policy->wrap_arg);
	return 0;
}

/* By a name without options. */
static int open_path(struct fiber *f, struct image **out, const char *name, struct node *node,
		     struct error *err)
{
	size_t len = strcspn(name, ":/");
	const struct image_protocol *protocol = &file_protocol;

	if (name[len] == ':')
		protocol = protocol_find(name, len);
	if (!protocol)
		return err_set(err, -EINVAL, "Unknown protocol '%.*s'", (int)len, name);
	return open_protocol(f, out, protocol, name, node, err);
}

static int open_with_options(struct fiber *f, struct image **out, struct node *node,
			     struct error *err)
{
	const char *driver = opts_get(&node->opts, "driver");
	const char *name = opts_get(&node->opts, "filename");
	const struct image_protocol *protocol;

	node->policy.options = &node->opts;
	if (driver) {
		protocol = protocol_find(driver, strlen(driver));
		if (protocol)
			return open_protocol(f, out, protocol, NULL, node, err);
		node->policy.format = NULL;
		return open_nested(f, out, node, err);
	}
	return open_path(f, out, name ? name : "", node, err);
}

static bool names_something(const struct opts *o)
{
	return opts_has(o, "driver") || opts_has(o, "filename") || opts_has(o, "file.driver") ||
	       opts_has(o, "file.filename");
}

static int child_of(struct fiber *f, struct image **out, struct node *child, const char *name,
		    struct error *err)
{
	int ret;

	if (names_something(&child->opts)) {
		ret = take_options(child, err);
		return ret < 0 ? ret : open_with_options(f, out, child, err);
	}
	ret = take_options(child, err);
	return ret < 0 ? ret : open_path(f, out, name, child, err);
}

static int open_child(struct fiber *f, struct image **out, const char *prefix, const char *name,
		      const struct node *parent, struct error *err)
{
	struct node child = {.policy = parent->policy};
	int ret;

	if (++child.policy.nesting > NEST_MOST)
		return err_set(err, -ELOOP, "more than %u formats over one another", NEST_MOST);
	opts_sub(&parent->opts, prefix, &child.opts);
	child.policy.share_rw &= parent->policy.format && !strcmp(parent->policy.format, "raw");
	child.policy.format = NULL;
	child.policy.options = &child.opts;
	child.policy.detect_zeroes = DETECT_ZEROES_OFF;
	child.policy.check_only = child.policy.no_backing = false;
	child.policy.snapshot = NULL;
	if (name || names_something(&child.opts))
		ret = child_of(f, out, &child, name, err);
	else
		ret = err_set(err, -EINVAL, "A block device must be specified for \"%.*s\"",
			      (int)strlen(prefix) - 1, prefix);
	opts_fini(&child.opts);
	return ret;
}

int image_open_child(struct fiber *f, struct image **out, const char *prefix, const char *name,
		     const struct open_policy *policy, struct error *err)
{
	struct node parent = {.policy = *policy};

	if (policy->options)
		parent.opts = *policy->options;
	return open_child(f, out, prefix, name, &parent, err);
}

/* --- one image --------------------------------------------------------------------------- */

static int find_driver(struct fiber *f, struct node *node, const struct image_driver **out,
		       struct error *err)
{
	const char *format = node->policy.format;
	u8 head[HEAD_BYTES];
	u64 bytes = MIN(node->file->bytes, sizeof(head));
	int ret;

	if (format) {
		*out = image_driver_find(format);
		return *out ? 0 : err_set(err, -EINVAL, "Unknown driver '%s'", format);
	}
	ret = image_pread(f, node->file, 0, head, bytes);
	if (ret < 0)
		return err_set_errno(err, ret,
				     "Could not read image '%s' for determining its format",
				     node->file->name);
	*out = image_driver_probe(head, bytes);
	return 0;
}

static int open_format(struct fiber *f, struct image **out, const struct image_driver *driver,
		       struct node *node, struct error *err)
{
	struct image *img = image_new(driver, fiber_loop(f), lowest(node->file)->name);
	int ret;

	img->writable = node->policy.writable;
	img->detect_zeroes = (u8)node->policy.detect_zeroes;
	label(img, node);
	img->below = node->file;
	node->policy.options = &node->opts;
	if (!node->name) {
		free(img->name);
		img->name = name_of_options(img, &node->opts);
	}
	ret = driver->open(f, img, &node->policy, err);
	if (ret < 0) {
		image_free(img);
		return ret;
	}
	assert(img->below == node->file);
	ret = refuse_unknown(node, driver, err);
	if (ret < 0) {
		image_close(f, img);
		node->file = NULL; /* gone with it */
		return ret;
	}
	*out = img;
	return 0;
}

struct node_call {
	struct image **out;
	struct node *node;
	struct error *err;
};

static int open_node(struct fiber *f, struct image **out, struct node *node, struct error *err);

static int open_node_on_fresh_stack(struct fiber *f, void *arg)
{
	struct node_call *c = arg;

	return open_node(f, c->out, c->node, c->err);
}

/* `file` as a text names an image that is open already: there are none here. */
static int no_reference(const struct node *node, struct error *err)
{
	const char *name = opts_get(&node->opts, "file");

	if (!name)
		return 0;
	if (opts_has(&node->opts, "file.filename") || opts_has(&node->opts, "file.driver"))
		return err_set(err, -EINVAL,
			       "Cannot reference an existing block device with additional options "
			       "or a new filename");
	return no_such_node(name, err);
}

/* The driver that options name, before what is below has been looked at. */
static int judge_driver(const struct node *node, struct error *err)
{
	const char *format = node->policy.format;

	if (node->name)
		return 0;
	if (!format && !opts_has(&node->opts, "file.filename") &&
	    !opts_has(&node->opts, "file.driver"))
		return err_set(err, -EINVAL, "Must specify either driver or file");
	if (format && !image_driver_find(format))
		return err_set(err, -EINVAL, "Unknown driver '%s'", format);
	return 0;
}

static int open_node(struct fiber *f, struct image **out, struct node *node, struct error *err)
{
	struct node_call call = {out, node, err};
	const struct image_driver *driver;
	int ret;

	if (fiber_stack_left(f) < STACK_RESERVE)
		return fiber_call(f, open_node_on_fresh_stack, &call);
	if (!node->policy.format)
		node->policy.format = opts_get(&node->opts, "driver");
	ret = no_reference(node, err);
	if (ret == 0)
		ret = judge_driver(node, err);
	if (ret == 0)
		ret = open_child(f, &node->file, "file.", node->name, node, err);
	if (ret < 0)
		return ret;
	ret = find_driver(f, node, &driver, err);
	if (ret == 0)
		ret = open_format(f, out, driver, node, err);
	if (ret < 0)
		image_close(f, node->file);
	return ret;
}

/* A protocol in the place of a format: the host file as it is. */
static int open_top(struct fiber *f, struct image **out, struct node *node, struct error *err)
{
	AUTO_FREE char *format = node->policy.format ? xstrdup(node->policy.format) : NULL;
	int ret;

	if (!format || !protocol_find(format, strlen(format)))
		return open_node(f, out, node, err);
	opts_set(&node->opts, "driver", format);
	if (node->name)
		opts_set(&node->opts, "filename", node->name);
	ret = open_with_options(f, out, node, err);
	if (ret == 0)
		(*out)->bytes = align_up((*out)->bytes, 512);
	return ret;
}

/* A number in the place of a file's name is none. */
static bool is_bare_name(const struct opt *opt)
{
	size_t len = strlen(opt->name);

	return opt->bare && len >= 8 && !strcmp(opt->name + len - 8, "filename");
}

/* `opts` is what the caller gave; those of a json: name come after it. */
static int merge_json(struct node *node, struct error *err)
{
	struct opts json;
	int ret;

	if (!node->name || !name_is_json(node->name))
		return 0;
	ret = name_parse_json(node->name, &json, err);
	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < json.n; i++)
		if (!opts_has(&node->opts, json.v[i].name) && !is_bare_name(&json.v[i]))
			opts_add(&node->opts, json.v[i].name, json.v[i].value, json.v[i].bare);
	opts_fini(&json);
	node->name = NULL;
	return 0;
}

/* Options for the image behind this one; an empty name in it: there is none. */
static void behind(const struct node *node, struct opts *out)
{
	opts_sub(&node->opts, "backing.", out);
	if (!opts_has(&node->opts, "backing"))
		return;
	for (unsigned i = 0; i < node->opts.n; i++)
		if (!strcmp(node->opts.v[i].name, "backing") && !node->opts.v[i].bare)
			log_warn("Use of \"backing\": \"\" is deprecated; use \"backing\": null "
				 "instead");
	opts_set(out, "", "");
}

/* Opens one image; *backing are its options for the image behind it. */
static int open_one(struct fiber *f, struct image **out, const char *name,
		    const struct open_policy *policy, struct opts *backing, struct error *err)
{
	struct node node = {.name = name, .policy = *policy};
	int ret;

	*backing = (struct opts){0};
	if (policy->options)
		opts_sub(policy->options, "", &node.opts);
	node.policy.options = &node.opts;
	ret = merge_json(&node, err);
	if (ret == 0)
		ret = take_options(&node, err);
	if (ret == 0)
		ret = open_top(f, out, &node, err);
	if (ret == 0)
		behind(&node, backing);
	opts_fini(&node.opts);
	return ret;
}

/* --- chains --------------------------------------------------------------------------------- */

char *image_resolve_name(const char *overlay, const char *backing)
{
	const char *slash = strrchr(overlay, '/');

	if (backing[0] == '/' || name_has_protocol(backing) || !slash)
		return xstrdup(backing);
	return xasprintf("%.*s%s", (int)(slash - overlay) + 1, overlay, backing);
}

/* The host file at the bottom of what options describe. */
static const char *path_in(const struct opts *o)
{
	for (unsigned i = 0; i < o->n; i++) {
		const char *name = o->v[i].name;

		while (!strncmp(name, "file.", 5))
			name += 5;
		if (!strcmp(name, "filename"))
			return o->v[i].value;
	}
	return NULL;
}

/* The path of a backing image, as far as its name tells it. */
static char *path_of(const char *name, const struct opts *o)
{
	struct opts json = {0};
	struct error err;
	const char *path = NULL;
	char *result;

	if (!name) {
		path = path_in(o);
	} else if (name_is_json(name)) {
		if (name_parse_json(name, &json, &err) == 0)
			path = path_in(&json);
	} else {
		path = name;
	}
	if (path && !strncmp(path, "file:", 5))
		path += 5;
	result = path ? xstrdup(path) : NULL;
	opts_fini(&json);
	return result;
}

/* Asked before opening: the locks of the first opening would refuse the second,
 * with a message that does not help. */
static bool is_in_chain(const struct image *top, const char *path)
{
	struct stat st;

	if (!path || stat(path, &st))
		return false; /* opening it will say what is wrong */
	for (; top; top = top->backing) {
		const struct image *file = lowest(top);

		if (file->driver == &file_driver && file_is(file, st.st_dev, st.st_ino))
			return true;
	}
	return false;
}

struct backing {
	struct image *top, *overlay;
	struct opts opts; /* for this image; then for the next one */
};

static int open_named_backing(struct fiber *f, struct backing *b, const char *name,
			      const struct open_policy *policy, struct error *err)
{
	AUTO_FREE char *path = path_of(name, &b->opts);
	struct opts next;
	int ret;

	if (is_in_chain(b->top, path))
		return err_set(err, -ELOOP, "Backing file '%s' of '%s' creates an infinite loop.",
			       path, b->overlay->name);
	ret = open_one(f, &b->overlay->backing, name, policy, &next, err);
	if (ret < 0)
		return ret;
	loop_note_change(b->top->loop);
	opts_fini(&b->opts);
	b->opts = next;
	b->overlay = b->overlay->backing;
	return 0;
}

/* Open what the overlay, last image of top's chain, names as its backing, or what
 * the options put in its place. */
static int open_backing(struct fiber *f, struct backing *b, const struct open_policy *policy,
			struct error *err)
{
	struct open_policy readonly = *policy;
	char *name = NULL;
	int ret;

	/* A name says how to open; who wrote the image must not choose a writer. */
	readonly.writable = false;
	readonly.check_only = false;
	readonly.detect_zeroes = DETECT_ZEROES_OFF;
	readonly.snapshot = NULL;
	readonly.format = NULL;
	readonly.options = &b->opts;
	if (!opts_has(&b->opts, "driver"))
		readonly.format = b->overlay->backing_format;
	if (b->overlay->backing_name && !opts_has(&b->opts, "file.filename") &&
	    !opts_has(&b->opts, "file.driver"))
		name = image_resolve_name(lowest(b->overlay)->name, b->overlay->backing_name);
	ret = open_named_backing(f, b, name, &readonly, err);
	free(name);
	return ret;
}

static bool wants_backing(const struct backing *b)
{
	/* "backing" as a text: empty for none. */
	if (opts_has(&b->opts, ""))
		return false;
	return b->overlay->backing_name || names_something(&b->opts);
}

/* The chain behind `top`; takes `opts`. */
static int open_chain(struct fiber *f, struct image *top, struct opts *opts,
		      const struct open_policy *policy, struct error *err)
{
	struct backing b = {.top = top, .overlay = top, .opts = *opts};
	unsigned depth = 0;
	int ret = 0;

	for (; ret == 0 && !policy->no_backing && wants_backing(&b); depth++)
		ret = open_backing(f, &b, policy, err);
	opts_fini(&b.opts);
	if (ret == 0)
		return 0;
	/* As if each image had opened the one behind it. */
	for (unsigned i = 0; i < MIN(depth, PREFIX_MOST); i++)
		err_prefix(err, "Could not open backing file");
	image_close(f, top);
	return ret;
}

static int open_nested(struct fiber *f, struct image **out, struct node *node, struct error *err)
{
	struct opts backing;
	int ret = open_node(f, out, node, err);

	if (ret < 0)
		return ret;
	behind(node, &backing);
	return open_chain(f, *out, &backing, &node->policy, err);
}

int image_open(struct fiber *f, struct image **out, const char *name,
	       const struct open_policy *policy, struct error *err)
{
	struct opts backing;
	int ret = open_one(f, out, name, policy, &backing, err);

	return ret < 0 ? ret : open_chain(f, *out, &backing, policy, err);
}
