/* A list of `key=value,key=value` as command line options and configuration
 * files give it.  A doubled comma stands for one comma inside a value; a bare
 * `key` means key=on and a bare `nokey` key=off. */
#ifndef BASE_OPTS_H
#define BASE_OPTS_H

#include "base/base.h"
#include "base/error.h"

struct opt {
	char *name, *value;
	bool bare; /* given without "=value" */
};
struct opts {
	struct opt *v;
	unsigned n;
};

/* Parse text into a fresh list.  implied names the key of a first item that has
 * no "="; NULL: there is none. */
int opts_parse(struct opts *o, const char *text, const char *implied, struct error *err);
/* The same behind what the list has already, which is kept if that fails. */
int opts_append(struct opts *o, const char *text, const char *implied, struct error *err);
void opts_fini(struct opts *o);
void opts_add(struct opts *o, const char *name, const char *value, bool bare);
/* Replace the last value given under this name, or add one. */
void opts_set(struct opts *o, const char *name, const char *value);
/* Those whose name starts with prefix ("file."), without it, into a fresh list. */
void opts_sub(const struct opts *o, const char *prefix, struct opts *out);
/* Back to text that opts_parse understands (free() it). */
char *opts_text(const struct opts *o, const char *implied);

/* keys: names separated by blanks.  "Invalid parameter 'foo'" for any other. */
int opts_check(const struct opts *o, const char *keys, struct error *err);

/* The last value given, or NULL. */
const char *opts_get(const struct opts *o, const char *name);
bool opts_has(const struct opts *o, const char *name);
/* These leave *out alone when the key was not given. */
int opts_get_bool(const struct opts *o, const char *name, bool *out, struct error *err);
int opts_get_u32(const struct opts *o, const char *name, u32 *out, struct error *err);
int opts_get_size(const struct opts *o, const char *name, u64 unit, u64 *out, struct error *err);
/* A copy of the text; frees what *out was. */
void opts_get_str(const struct opts *o, const char *name, char **out);

/* Bytes from "512", "2G", "1.5M"; a number without suffix counts `unit` bytes. */
int parse_size(const char *text, u64 unit, u64 *out);
/* The other way: "64 MiB", "1.5 GiB"; text has room for 32 bytes. */
void format_size(char *text, u64 bytes);
int parse_bool(const char *text, bool *out);
int parse_u64(const char *text, u64 *out);
/* Letters, digits, '-', '.', '_', starting with a letter. */
bool is_identifier(const char *text);
/* Place of text in names, which ends in NULL; -EINVAL when not there. */
int parse_choice(const char *text, const char *const *names);

#endif
