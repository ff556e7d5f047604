/* A guest that dirties memory at a set rate and stamps a heartbeat with the TSC.
 *
 * A multiboot kernel (Multiboot Specification 0.6.96), 32 bits, flat, no library:
 *	-kernel beat -append "rate=MB_PER_SECOND"
 * Makes every page from 16 MiB on (below 3 GiB) one that is no zeros, then writes to
 * one after the other at the rate, for ever (rate 0: none).  Every few milliseconds it
 * says on COM1 "TSC GAP PAGES": its time, the longest time in which it did nothing
 * since the last line, both in ticks, and how many pages it has written so far.  All
 * three are hexadecimal.  Whoever reads the lines learns the TSC's rate from them. */
#include <stdint.h>

#define BOOT_MAGIC  0x1badb002u
#define BOOT_MEMORY 2u /* flag: we want to be told how much memory there is */
#define FIRST	    (16u << 20)
#define PAGE	    4096u
#define COM1	    0x3f8

struct boot_info {
	uint32_t flags, mem_lower, mem_upper; /* KiB */
	uint32_t boot_device;
	const char *cmdline;
};

__attribute__((section(".multiboot"), used)) static const uint32_t header[] = {
	BOOT_MAGIC, BOOT_MEMORY, 0u - (BOOT_MAGIC + BOOT_MEMORY)};

static inline void out8(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline uint64_t ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static void say_char(char c)
{
	while (!(in8(COM1 + 5) & 0x20))
		;
	out8(COM1, (uint8_t)c);
}

static void say_hex(uint64_t v, int digits, char end)
{
	while (digits-- > 0)
		say_char("0123456789abcdef"[v >> (4 * digits) & 15]);
	say_char(end);
}

static uint32_t rate_of(const char *text)
{
	uint32_t rate = 0;

	for (; text && *text; text++)
		if (text[0] == 'r' && text[1] == 'a' && text[2] == 't' && text[3] == 'e' &&
		    text[4] == '=')
			for (text += 5; *text >= '0' && *text <= '9'; text++)
				rate = rate * 10 + (uint32_t)(*text - '0');
	return rate;
}

/* Ticks of a millisecond, by the PIT's channel 2: 1.193182 MHz, counting down. */
static uint64_t ticks_per_ms(void)
{
	const uint16_t count = 11932; /* 10 ms */
	uint64_t start;

	out8(0x61, (uint8_t)((in8(0x61) & ~2u) | 1u));
	out8(0x43, 0xb0); /* channel 2, both bytes, mode 0 */
	out8(0x42, count & 0xff);
	out8(0x42, count >> 8);
	start = ticks();
	while (!(in8(0x61) & 0x20))
		;
	return (uint64_t)((uint32_t)(ticks() - start) / 10);
}

/* Write into n pages from `at` on.  Three instructions a page: some kinds of KVM
 * interpret us, a microsecond each. */
static void touch(uint32_t at, uint32_t n)
{
	__asm__ volatile("1:	mov %0, (%0)\n"
			 "	add $4096, %0\n"
			 "	loop 1b\n"
			 : "+r"(at), "+c"(n)
			 :
			 : "memory");
}

/* A millisecond's pages every millisecond; what it misses standing still is lost. */
static void beat(uint32_t end, uint32_t rate, uint32_t per_ms)
{
	uint32_t at = FIRST, pages = 0, n = rate * 1000 / 4096;
	uint64_t last = ticks(), said = last, due = last, gap = 0;

	for (;;) {
		uint64_t now = ticks();

		if (now - last > gap)
			gap = now - last;
		last = now;
		if (now - said > 3 * (uint64_t)per_ms) {
			say_hex(now, 16, ' ');
			say_hex(gap, 10, ' ');
			say_hex(pages, 8, '\n');
			gap = 0;
			said = last = ticks();
		}
		if (!n || now < due)
			continue;
		due += per_ms;
		if (now > due + 20 * (uint64_t)per_ms)
			due = now;
		if (at + n * PAGE > end)
			at = FIRST;
		touch(at, n);
		at += n * PAGE;
		pages += n;
	}
}

__attribute__((used)) void start(const struct boot_info *info)
{
	uint32_t end = (info->mem_upper + 1024) << 10;
	uint32_t per_ms = (uint32_t)ticks_per_ms();

	if (info->mem_upper >= 3u << 20)
		end = 3u << 30;
	touch(FIRST, (end - FIRST) / PAGE);
	beat(end & ~(PAGE - 1), rate_of(info->cmdline), per_ms);
}

__asm__(".globl _start\n"
	"_start: mov $0x80000, %esp\n"
	"	push %ebx\n"
	"	call start\n"
	"1:	hlt\n"
	"	jmp 1b\n");
