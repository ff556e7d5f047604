/* Formatted output to whoever asked; see printer.h. */
#define _GNU_SOURCE
#include "base/printer.h"

#include <stdarg.h>
#include <stdio.h>

void print_to(struct printer *p, const char *fmt, ...)
{
	char small[256], *text = small;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(small, sizeof(small), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(small)) {
		text = xalloc((size_t)n + 1);
		va_start(ap, fmt);
		vsnprintf(text, (size_t)n + 1, fmt, ap);
		va_end(ap);
	}
	if (n > 0)
		p->print(p, text, (size_t)n);
	if (text != small)
		free(text);
}

static void text_print(struct printer *p, const char *text, size_t bytes)
{
	struct text_printer *t = container_of(p, struct text_printer, printer);

	if (t->bytes + bytes + 1 > t->room) {
		t->room = MAX(2 * t->room, t->bytes + bytes + 1);
		t->text = xrealloc(t->text, t->room);
	}
	memcpy(t->text + t->bytes, text, bytes);
	t->bytes += bytes;
	t->text[t->bytes] = 0;
}

void text_printer_init(struct text_printer *t)
{
	*t = (struct text_printer){.printer.print = text_print, .text = xstrdup("")};
}
