/* Names of images that say how to open them; see names.h.
 *
 * The JSON that people write is the reference's dialect: strings may stand in
 * single quotes.  What is parsed may come from a hostile image, so brackets are
 * counted before the parser, which recurses, sees them.  Thread: any. */
#include "block/names.h"

#include "block/driver.h"
#include "block/file.h"
#include "block/image.h"

#include <errno.h>
#include <stdio.h>

#include <jansson.h>

#define PREFIX	   "json:"
#define JSON_BYTES (64 * KiB) /* more than any name of use */
#define JSON_DEPTH 32
#define JSON_ITEMS 1000

bool name_is_json(const char *name)
{
	return !strncmp(name, PREFIX, strlen(PREFIX));
}

bool name_has_protocol(const char *name)
{
	return name[strcspn(name, ":/")] == ':';
}

bool name_in_keys(const char *keys, const char *name)
{
	size_t len = strlen(name), word;

	for (; *keys; keys += word + (keys[word] == ' ')) {
		word = strcspn(keys, " ");
		assert(word);
		if (keys[word - 1] == '.' ? len > word && !memcmp(keys, name, word)
					  : len == word && !memcmp(keys, name, word))
			return true;
	}
	return false;
}

/* --- to standard JSON ------------------------------------------------------------ */

struct dialect {
	const char *from;
	char *to; /* room for twice the text */
	unsigned depth;
};

/* A string, from its opening quote to its closing one. */
static int copy_string(struct dialect *d)
{
	char quote = *d->from++;

	*d->to++ = '"';
	for (; *d->from != quote; d->from++) {
		if (!*d->from)
			return -EINVAL;
		if (*d->from == '"') {
			*d->to++ = '\\';
		} else if (*d->from == '\\' && d->from[1] == '\'') {
			d->from++;
		} else if (*d->from == '\\' && d->from[1]) {
			*d->to++ = *d->from++;
		}
		*d->to++ = *d->from;
	}
	d->from++;
	*d->to++ = '"';
	return 0;
}

static int copy_dialect(struct dialect *d)
{
	while (*d->from) {
		char c = *d->from;

		if (c == '"' || c == '\'') {
			if (copy_string(d) < 0)
				return -EINVAL;
			continue;
		}
		if (c == '{' || c == '[')
			d->depth++;
		if ((c == '}' || c == ']') && d->depth)
			d->depth--;
		if (d->depth > JSON_DEPTH)
			return -E2BIG;
		*d->to++ = *d->from++;
	}
	*d->to = 0;
	return 0;
}

/* --- to a flat list -------------------------------------------------------------- */

struct flat {
	struct opts *out;
	unsigned items;
};

static int flatten(struct flat *flat, const char *prefix, json_t *value);

static int flatten_item(struct flat *flat, const char *prefix, const char *key, json_t *value)
{
	AUTO_FREE char *name = xasprintf("%s%s%s", prefix, *prefix ? "." : "", key);

	if (++flat->items > JSON_ITEMS)
		return -E2BIG;
	if (json_is_object(value) || json_is_array(value))
		return flatten(flat, name, value);
	if (opts_has(flat->out, name))
		return 0; /* said twice, nested and with dots */
	if (json_is_string(value)) {
		opts_add(flat->out, name, json_string_value(value), false);
	} else if (json_is_null(value)) {
		opts_add(flat->out, name, "", true);
	} else if (json_is_boolean(value)) {
		opts_add(flat->out, name, json_is_true(value) ? "on" : "off", true);
	} else {
		char text[64];

		if (json_is_integer(value))
			snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
		else
			snprintf(text, sizeof(text), "%.17g", json_real_value(value));
		opts_add(flat->out, name, text, true);
	}
	return 0;
}

/* Recursion is bounded by JSON_DEPTH. */
static int flatten(struct flat *flat, const char *prefix, json_t *value)
{
	const char *key;
	json_t *item;
	size_t i;
	int ret = 0;

	if (json_is_array(value)) {
		json_array_foreach(value, i, item)
		{
			char number[24];

			snprintf(number, sizeof(number), "%zu", i);
			ret = flatten_item(flat, prefix, number, item);
			if (ret < 0)
				return ret;
		}
		return 0;
	}
	json_object_foreach(value, key, item)
	{
		ret = flatten_item(flat, prefix, key, item);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int syntax_error(const char *what, struct error *err)
{
	return err_set(err, -EINVAL, "Could not parse the JSON options: JSON parse error, %s",
		       what);
}

static int load(const char *text, json_t **out, struct error *err)
{
	AUTO_FREE char *standard = xalloc(2 * strlen(text) + 3);
	struct dialect d = {.from = text, .to = standard};
	json_error_t why;
	int ret;

	if (!text[strspn(text, " \t\r\n")])
		return err_set(err, -EINVAL,
			       "Could not parse the JSON options: Expecting a JSON value");
	ret = copy_dialect(&d);
	if (ret == -E2BIG)
		return syntax_error("nested too deep", err);
	if (ret < 0 || d.depth)
		return syntax_error("premature EOI", err);
	*out = json_loads(standard, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
	if (*out)
		return 0;
	if (json_error_code(&why) == json_error_duplicate_key)
		return syntax_error("duplicate key", err);
	if (json_error_code(&why) == json_error_end_of_input_expected)
		return err_set(err, -EINVAL,
			       "Could not parse the JSON options: Expecting at most one JSON "
			       "value");
	return syntax_error(why.text, err);
}

int name_parse_json(const char *name, struct opts *out, struct error *err)
{
	struct flat flat = {.out = out};
	json_t *value;
	int ret;

	*out = (struct opts){0};
	if (strlen(name) > JSON_BYTES)
		return err_set(err, -EINVAL, "Could not parse the JSON options: too long");
	ret = load(name + strlen(PREFIX), &value, err);
	if (ret < 0)
		return ret;
	if (json_is_object(value))
		ret = flatten(&flat, "", value);
	else
		ret = err_set(err, -EINVAL, "Invalid JSON object given");
	if (ret == -E2BIG)
		err_set(err, -EINVAL, "Could not parse the JSON options: too many");
	json_decref(value);
	if (ret < 0)
		opts_fini(out);
	return ret < 0 ? -EINVAL : 0;
}

/* --- names to show ----------------------------------------------------------------- */

/* Options that make an image another one; the rest only says how to use it. */
#define STRONG_KEYS "offset size encrypt."

static void set_option(json_t *to, const struct opts *o, const char *name)
{
	for (unsigned i = 0; i < o->n; i++) {
		const struct opt *opt = &o->v[i];

		if (strcmp(opt->name, name))
			continue;
		json_object_set_new(to, name,
				    opt->bare ? json_integer(strtoll(opt->value, NULL, 10))
					      : json_string(opt->value));
	}
}

static json_t *file_of(const struct image *below)
{
	json_t *inner;

	if (below->driver == &file_driver || !below->below)
		return json_pack("{s:s, s:s}", "driver", below->driver->name, "filename",
				 below->name);
	if (name_is_json(below->name)) {
		inner = json_loads(below->name + strlen(PREFIX), 0, NULL);
		if (inner)
			return inner;
	}
	return json_pack("{s:s, s:o}", "driver", below->driver->name, "file",
			 file_of(below->below));
}

/* Nothing but a format driver over a host file, with filters between them. */
static bool is_plain(const struct image *img, const struct opts *o)
{
	for (unsigned i = 0; i < o->n; i++)
		if (name_in_keys(STRONG_KEYS, o->v[i].name))
			return false;
	while (img->below) {
		img = img->below;
		if (image_driver_find(img->driver->name))
			return false;
	}
	return true;
}

char *name_of_options(const struct image *img, const struct opts *o)
{
	const struct image *file = img;
	json_t *name;
	char *text, *result;

	while (file->below)
		file = file->below;
	if (is_plain(img, o))
		return xstrdup(file->name);
	name = json_object();
	set_option(name, o, "offset");
	for (unsigned i = 0; i < o->n; i++)
		if (name_in_keys("encrypt.", o->v[i].name))
			set_option(name, o, o->v[i].name);
	json_object_set_new(name, "driver", json_string(img->driver->name));
	set_option(name, o, "size");
	if (img->below)
		json_object_set_new(name, "file", file_of(img->below));
	text = json_dumps(name, JSON_PRESERVE_ORDER);
	json_decref(name);
	result = xasprintf(PREFIX "%s", text ? text : "{}");
	free(text);
	return result;
}
