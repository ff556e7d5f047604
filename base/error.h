/* An error that a person will read: code and one line of text.
 *
 * Lives on the caller's stack, never NULL.  The text says what, where and what
 * was expected; no trailing newline or full stop.  I/O paths carry only the
 * negative errno they return. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "base/base.h"

#include <stdarg.h>

struct error {
	int code;	/* 0: none; else a negative errno */
	char text[512]; /* NUL-terminated, cut when longer */
};

/* Set code and text; returns code, which must be negative. */
int err_set(struct error *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
int err_vset(struct error *err, int code, const char *fmt, va_list ap);

/* As err_set, and appends ": " and the text of the errno. */
int err_set_errno(struct error *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Put context before the text: "context: text".  Returns err->code. */
int err_prefix(struct error *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
