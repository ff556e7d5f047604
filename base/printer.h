/* Where a command prints: a monitor, a buffer, a file.  Text may hold several
 * lines or parts of one. */
#ifndef BASE_PRINTER_H
#define BASE_PRINTER_H

#include "base/base.h"

struct printer {
	void (*print)(struct printer *p, const char *text, size_t bytes);
};
void print_to(struct printer *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* A printer into memory; text is NUL-terminated, free() it. */
struct text_printer {
	struct printer printer;
	char *text;
	size_t bytes, room;
};
void text_printer_init(struct text_printer *t);

#endif
