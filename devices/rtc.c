/* MC146818A real-time clock with 128 bytes of CMOS memory, ports 0x70-0x71, IRQ 8.
 * Motorola MC146818A data sheet; CMOS bytes as in the IBM AT Technical Reference and
 * as SeaBIOS reads them (its src/hw/rtc.h names them).
 *
 * Time is not counted but computed: wall clock = virtual time + an offset, to which the
 * time that the machine stood still is added unless it is to go by virtual time.  While
 * the guest sets the clock (SET), or holds the divider in reset, the registers stand and
 * the offset is made anew afterwards.  Flags of register C are computed, too: each
 * has the time up to which it has been looked at; timers run only for interrupts
 * that are enabled.
 * Threads: handlers under the device's lock; timers on the main loop take it. */
#include "devices/rtc.h"

#include "base/log.h"

#include <errno.h>
#include <time.h>

enum {
	REG_SECONDS,
	REG_SECONDS_ALARM,
	REG_MINUTES,
	REG_MINUTES_ALARM,
	REG_HOURS,
	REG_HOURS_ALARM,
	REG_WEEKDAY,
	REG_DAY,
	REG_MONTH,
	REG_YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
};

#define A_UIP	    0x80
#define A_DIVIDER   0x70
#define A_RUNNING   0x20 /* divider: 32768 Hz crystal, running */
#define A_RATE	    0x0f
#define B_SET	    0x80
#define B_PIE	    0x40
#define B_AIE	    0x20
#define B_UIE	    0x10
#define B_SQWE	    0x08
#define B_BINARY    0x04
#define B_24H	    0x02
#define C_IRQF	    0x80
#define C_PF	    0x40
#define C_AF	    0x20
#define C_UF	    0x10
#define D_VALID	    0x80
#define HOUR_PM	    0x80
#define ALARM_ANY   0xc0   /* both bits: "don't care" */
#define INDEX_MASK  0x7f   /* bit 7 of port 0x70 masks NMIs, which this machine ignores */
#define UIP_NS	    244000 /* UIP rises this long before an update */
#define SECOND	    NS_PER_SEC
#define HALF_SECOND (NS_PER_SEC / 2)
#define CRYSTAL_HZ  32768
#define ISA_IRQ	    8
#define MIN_SECOND  (-946771200ll) /* start of 1940 and end of 2199: what fits into ns */
#define MAX_SECOND  7258118399ll

#define CMOS_DISKETTE	 0x10
#define CMOS_DISKS	 0x12
#define CMOS_EQUIPMENT	 0x14
#define CMOS_BASE_KIB	 0x15 /* 2 bytes */
#define CMOS_EXT_KIB	 0x17 /* 2 bytes: memory above 1 MiB */
#define CMOS_CHECKSUM	 0x2e /* 2 bytes, high first, over 0x10 .. 0x2d */
#define CMOS_EXT_KIB2	 0x30 /* 2 bytes, the same again */
#define CMOS_CENTURY	 0x32
#define CMOS_ABOVE_16M	 0x34 /* 2 bytes, in 64 KiB */
#define CMOS_CENTURY_PS2 0x37 /* the same byte at another place */
#define CMOS_TRANSLATION 0x39 /* 2 bits a disk: 1 = LBA assisted */
#define CMOS_ABOVE_4G	 0x5b /* 3 bytes, in 64 KiB */
#define CMOS_CPUS	 0x5f /* number of CPUs less one */

struct rtc {
	struct device dev;
	struct bus_region *ports; /* [const] */
	struct irq_line line;	  /* level under [dev.lock] */
	struct timer event;	  /* alarm and update-ended interrupts */
	struct timer periodic;

	/* [dev.lock] */
	u8 index;
	u8 cmos[128];	      /* time registers are valid while standing only */
	s64 offset_ns;	      /* wall clock less virtual time, while it runs */
	s64 seen_second;      /* wall second up to which UF and AF have been judged */
	u64 seen_ns;	      /* virtual time up to which PF has been judged */
	s64 left_ns;	      /* what the clock that it goes by showed at the pause; 0: nothing */
	enum rtc_clock clock; /* [const] */
};

/* --- calendar ----------------------------------------------------------------- */

struct date {
	s64 year;
	u32 month, day, hour, minute, second, weekday; /* month and day from 1, Sunday is 0 */
};

static s64 floor_div(s64 a, s64 b)
{
	return a / b - (a % b < 0);
}

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar.  Years are
 * taken to start in March, so that the leap day is the last one. */
static s64 days_of(s64 year, u32 month, u32 day)
{
	s64 y = year - (month <= 2);
	s64 era = floor_div(y, 400);
	s64 year_of_era = y - era * 400;
	s64 day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + (s64)day - 1;
	s64 day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return era * 146097 + day_of_era - 719468;
}

static void date_of(s64 seconds, struct date *d)
{
	s64 days = floor_div(seconds, 86400), z = days + 719468;
	u32 rest = (u32)(seconds - days * 86400);
	s64 era = floor_div(z, 146097);
	s64 doe = z - era * 146097;
	s64 yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	s64 doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	u32 mp = (u32)((5 * doy + 2) / 153); /* months since March */

	d->day = (u32)(doy - (153 * mp + 2) / 5 + 1);
	d->month = mp < 10 ? mp + 3 : mp - 9;
	d->year = yoe + era * 400 + (d->month <= 2);
	d->hour = rest / 3600;
	d->minute = rest / 60 % 60;
	d->second = rest % 60;
	d->weekday = (u32)(days + 4 - 7 * floor_div(days + 4, 7));
}

/* --- registers as the guest formats them --------------------------------------- */

static u8 to_reg(const struct rtc *s, u32 value)
{
	return (u8)(s->cmos[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static u32 from_reg(const struct rtc *s, u8 reg)
{
	return s->cmos[REG_B] & B_BINARY ? reg : (u32)(reg >> 4) * 10 + (reg & 0xf);
}

static u8 hour_to_reg(const struct rtc *s, u32 hour)
{
	if (s->cmos[REG_B] & B_24H)
		return to_reg(s, hour);
	return to_reg(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static u32 hour_from_reg(const struct rtc *s, u8 reg)
{
	if (s->cmos[REG_B] & B_24H)
		return from_reg(s, reg) % 24;
	return from_reg(s, reg & (u8)~HOUR_PM) % 12 + (reg & HOUR_PM ? 12 : 0);
}

static void store_time(struct rtc *s, s64 seconds)
{
	struct date d;

	date_of(seconds, &d);
	s->cmos[REG_SECONDS] = to_reg(s, d.second);
	s->cmos[REG_MINUTES] = to_reg(s, d.minute);
	s->cmos[REG_HOURS] = hour_to_reg(s, d.hour);
	s->cmos[REG_WEEKDAY] = to_reg(s, d.weekday + 1);
	s->cmos[REG_DAY] = to_reg(s, d.day);
	s->cmos[REG_MONTH] = to_reg(s, d.month);
	s->cmos[REG_YEAR] = to_reg(s, (u32)(d.year - 100 * floor_div(d.year, 100)));
	s->cmos[CMOS_CENTURY] = to_reg(s, (u32)(floor_div(d.year, 100) & 0x7f));
}

/* Registers that no calendar knows count as the nearest that it does. */
static s64 load_time(const struct rtc *s)
{
	s64 year = (s64)from_reg(s, s->cmos[CMOS_CENTURY]) * 100 + from_reg(s, s->cmos[REG_YEAR]);
	u32 month = MIN(MAX(from_reg(s, s->cmos[REG_MONTH]), 1u), 12u);
	u32 day = MIN(MAX(from_reg(s, s->cmos[REG_DAY]), 1u), 31u);
	u32 hour = hour_from_reg(s, s->cmos[REG_HOURS]);
	u32 minute = from_reg(s, s->cmos[REG_MINUTES]) % 60;
	u32 second = from_reg(s, s->cmos[REG_SECONDS]) % 60;

	/* What the offset in nanoseconds can hold. */
	year = MIN(MAX(year, (s64)1940), (s64)2199);
	return days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
}

static bool is_offset(s64 ns)
{
	return ns <= MAX_SECOND * SECOND && ns >= 2 * MIN_SECOND * SECOND;
}

/* --- running and standing ------------------------------------------------------- */

static bool is_running(const struct rtc *s)
{
	return !(s->cmos[REG_B] & B_SET) && (s->cmos[REG_A] & A_DIVIDER) == A_RUNNING;
}

static s64 wall_ns(const struct rtc *s)
{
	return (s64)clock_now(s->dev.machine->clock) + s->offset_ns;
}

static s64 wall_second(const struct rtc *s)
{
	return floor_div(wall_ns(s), SECOND);
}

static void set_wall_ns(struct rtc *s, s64 ns)
{
	s->offset_ns = ns - (s64)clock_now(s->dev.machine->clock);
	s->seen_second = wall_second(s);
}

/* --- alarm ---------------------------------------------------------------------- */

static bool alarm_matches(const struct rtc *s, u8 reg, u32 value)
{
	u8 alarm = s->cmos[reg];

	if ((alarm & ALARM_ANY) == ALARM_ANY)
		return true;
	return (reg == REG_HOURS_ALARM ? hour_from_reg(s, alarm) : from_reg(s, alarm)) == value;
}

/* The first second after `after` at which the alarm matches, or -1 if none does: a
 * field that is out of range never matches. */
static s64 next_alarm(const struct rtc *s, s64 after)
{
	s64 at = after + 1, end = after + 86400;

	while (at <= end) {
		s64 day_second = at - 86400 * floor_div(at, 86400);

		if (!alarm_matches(s, REG_HOURS_ALARM, (u32)(day_second / 3600)))
			at += 3600 - day_second % 3600;
		else if (!alarm_matches(s, REG_MINUTES_ALARM, (u32)(day_second / 60 % 60)))
			at += 60 - day_second % 60;
		else if (!alarm_matches(s, REG_SECONDS_ALARM, (u32)(day_second % 60)))
			at++;
		else
			return at;
	}
	return -1;
}

/* --- flags and interrupts ------------------------------------------------------- */

/* Ticks of the crystal that a period of the rate bits takes; 0: none. */
static u64 period_ticks(const struct rtc *s)
{
	u32 rate = s->cmos[REG_A] & A_RATE;

	if (!rate || (s->cmos[REG_A] & A_DIVIDER) != A_RUNNING)
		return 0;
	return (u64)1 << ((rate <= 2 ? rate + 7 : rate) - 1);
}

static u64 periods_until(u64 ns, u64 ticks)
{
	return (u64)((unsigned __int128)ns * CRYSTAL_HZ / SECOND) / ticks;
}

/* Virtual time at which the n-th period has ended, rounded up. */
static u64 period_end(u64 n, u64 ticks)
{
	return (u64)(((unsigned __int128)n * ticks * SECOND + CRYSTAL_HZ - 1) / CRYSTAL_HZ);
}

/* Set the flags of register C of what has happened since they were last judged. */
static void judge_flags(struct rtc *s)
{
	u64 now = clock_now(s->dev.machine->clock), ticks = period_ticks(s);
	s64 second;

	if (ticks && periods_until(now, ticks) != periods_until(s->seen_ns, ticks))
		s->cmos[REG_C] |= C_PF;
	s->seen_ns = now;
	if (!is_running(s))
		return;
	second = wall_second(s);
	if (second > s->seen_second) {
		s64 alarm = next_alarm(s, s->seen_second);

		s->cmos[REG_C] |= C_UF;
		if (alarm >= 0 && alarm <= second)
			s->cmos[REG_C] |= C_AF;
	}
	s->seen_second = second;
}

static void update_irq(struct rtc *s)
{
	bool irq = s->cmos[REG_C] & s->cmos[REG_B] & (C_PF | C_AF | C_UF);

	s->cmos[REG_C] = (u8)((s->cmos[REG_C] & ~C_IRQF) | (irq ? C_IRQF : 0));
	irq_line_set(&s->line, irq);
}

static void arm_periodic(struct rtc *s)
{
	u64 ticks = period_ticks(s);

	if (ticks && (s->cmos[REG_B] & B_PIE))
		timer_set(&s->periodic, period_end(periods_until(s->seen_ns, ticks) + 1, ticks));
	else
		timer_del(&s->periodic);
}

/* The next second that an enabled interrupt waits for. */
static void arm_event(struct rtc *s)
{
	s64 at = -1;
	s64 due;

	if (is_running(s) && (s->cmos[REG_B] & B_UIE))
		at = s->seen_second + 1;
	else if (is_running(s) && (s->cmos[REG_B] & B_AIE))
		at = next_alarm(s, s->seen_second);
	if (at < 0) {
		timer_del(&s->event);
		return;
	}
	due = at * SECOND - s->offset_ns;
	timer_set(&s->event, due > 0 ? (u64)due : 0);
}

/* After anything that the flags, interrupts or timers depend on has changed. */
static void update(struct rtc *s)
{
	judge_flags(s);
	update_irq(s);
	arm_periodic(s);
	arm_event(s);
}

static void event_fired(struct timer *t)
{
	struct rtc *s = container_of(t, struct rtc, event);

	LOCK_SCOPE(&s->dev.lock);
	update(s);
}

static void periodic_fired(struct timer *t)
{
	struct rtc *s = container_of(t, struct rtc, periodic);

	LOCK_SCOPE(&s->dev.lock);
	update(s);
}

/* --- register access ------------------------------------------------------------ */

static bool is_time_reg(u8 index)
{
	return index <= REG_YEAR ? index != REG_SECONDS_ALARM && index != REG_MINUTES_ALARM &&
					   index != REG_HOURS_ALARM
				 : index == CMOS_CENTURY;
}

static u8 read_c(struct rtc *s)
{
	u8 value;

	judge_flags(s);
	update_irq(s);
	value = s->cmos[REG_C];
	s->cmos[REG_C] = 0;
	update_irq(s);
	return value;
}

/* UIP also covers the moment in which the registers would change. */
static u8 read_a(const struct rtc *s)
{
	s64 ns = wall_ns(s);

	if (is_running(s) && ns - SECOND * floor_div(ns, SECOND) >= SECOND - UIP_NS)
		return s->cmos[REG_A] | A_UIP;
	return s->cmos[REG_A];
}

static u8 read_reg(struct rtc *s, u8 index)
{
	if (is_time_reg(index) && is_running(s))
		store_time(s, wall_second(s));
	switch (index) {
	case REG_A: return read_a(s);
	case REG_C: return read_c(s);
	default: return s->cmos[index];
	}
}

static void write_time_reg(struct rtc *s, u8 index, u8 value)
{
	s64 ns, fraction;

	if (!is_running(s)) {
		s->cmos[index] = value;
		return;
	}
	ns = wall_ns(s);
	fraction = ns - SECOND * floor_div(ns, SECOND);
	store_time(s, floor_div(ns, SECOND));
	s->cmos[index] = value;
	set_wall_ns(s, load_time(s) * SECOND + fraction);
}

/* Register A or B, which may start or stop the clock. */
static void write_control(struct rtc *s, u8 index, u8 value)
{
	bool was_running = is_running(s);
	bool was_held = (s->cmos[REG_A] & A_DIVIDER) != A_RUNNING;

	judge_flags(s); /* by the old settings */
	if (was_running)
		store_time(s, wall_second(s));
	s->cmos[index] = value;
	/* The first update comes half a second after the divider starts, or a whole
	 * one after SET goes. */
	if (is_running(s) && !was_running)
		set_wall_ns(s, load_time(s) * SECOND + (was_held ? HALF_SECOND : 0));
}

static void write_reg(struct rtc *s, u8 index, u8 value)
{
	switch (index) {
	case REG_A: write_control(s, index, value & (u8)~A_UIP); break;
	case REG_B: write_control(s, index, value & B_SET ? value & (u8)~B_UIE : value); break;
	case REG_C:
	case REG_D: return; /* read-only */
	default:
		if (is_time_reg(index))
			write_time_reg(s, index, value);
		else
			s->cmos[index] = value;
		break;
	}
	TRACE(TRACE_RTC, "write 0x%02x = 0x%02x", index, value);
	update(s);
}

static u8 register_of(const struct rtc *s)
{
	return s->index == CMOS_CENTURY_PS2 ? CMOS_CENTURY : s->index;
}

static u64 rtc_read(void *owner, u64 off, unsigned size)
{
	struct rtc *s = owner;

	return off == 0 ? 0xff : read_reg(s, register_of(s)); /* the index is write-only */
}

static void rtc_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct rtc *s = owner;

	if (off == 0)
		s->index = value & INDEX_MASK;
	else
		write_reg(s, register_of(s), (u8)value);
}

static const struct bus_ops rtc_ops = {rtc_read, rtc_write, 1, 1};

/* --- contents of CMOS ------------------------------------------------------------ */

static void put_le(struct rtc *s, u8 index, u64 value, unsigned bytes)
{
	u64 max = ((u64)1 << (8 * bytes)) - 1;

	value = MIN(value, max);
	for (unsigned i = 0; i < bytes; i++)
		s->cmos[index + i] = (u8)(value >> (8 * i));
}

static void put_checksum(struct rtc *s)
{
	u16 sum = 0;

	for (unsigned i = CMOS_DISKETTE; i < CMOS_CHECKSUM; i++)
		sum = (u16)(sum + s->cmos[i]);
	s->cmos[CMOS_CHECKSUM] = (u8)(sum >> 8);
	s->cmos[CMOS_CHECKSUM + 1] = (u8)sum;
}

static void fill_cmos(struct rtc *s)
{
	const struct machine *m = s->dev.machine;
	u64 low = m->ram_below_4g;
	u64 above_1m = low > MiB ? low - MiB : 0, above_16m = low > 16 * MiB ? low - 16 * MiB : 0;

	s->cmos[REG_A] = A_RUNNING | 6; /* 1024 Hz, as a BIOS sets it */
	s->cmos[REG_B] = B_24H;
	s->cmos[REG_D] = D_VALID;
	s->cmos[CMOS_EQUIPMENT] = 0x06; /* FPU, PS/2 mouse; no diskette drives */
	put_le(s, CMOS_BASE_KIB, 640, 2);
	put_le(s, CMOS_EXT_KIB, above_1m / KiB, 2);
	put_le(s, CMOS_EXT_KIB2, above_1m / KiB, 2);
	put_le(s, CMOS_ABOVE_16M, above_16m / (64 * KiB), 2);
	put_le(s, CMOS_ABOVE_4G, m->ram_above_4g / (64 * KiB), 3);
	s->cmos[CMOS_TRANSLATION] = 0x55;
	s->cmos[CMOS_CPUS] = (u8)(m->cpus ? m->cpus - 1 : 0);
	put_checksum(s);
}

void rtc_set_cmos(struct device *dev, u8 index, u8 value)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	assert(index > REG_D && index < sizeof(s->cmos));
	LOCK_SCOPE(&dev->lock);
	s->cmos[index] = value;
	put_checksum(s);
}

void rtc_set_time(struct device *dev, s64 seconds)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	LOCK_SCOPE(&dev->lock);
	set_wall_ns(s, MIN(MAX(seconds, MIN_SECOND), MAX_SECOND) * SECOND);
	update(s);
}

/* --- going by another clock ------------------------------------------------------ */

static s64 clock_of(const struct rtc *s)
{
	struct timespec now;

	if (s->clock == RTC_CLOCK_VIRTUAL)
		return 0;
	clock_gettime(s->clock == RTC_CLOCK_HOST ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
	return (s64)now.tv_sec * SECOND + now.tv_nsec;
}

void rtc_follow(struct device *dev, enum rtc_clock clock)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	LOCK_SCOPE(&dev->lock);
	s->clock = clock;
	s->left_ns = clock_of(s);
}

static void rtc_pause(struct device *dev)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	LOCK_SCOPE(&dev->lock);
	s->left_ns = clock_of(s);
}

/* A saved state may say anything: what leads nowhere is left alone. */
static void rtc_resume(struct device *dev)
{
	struct rtc *s = container_of(dev, struct rtc, dev);
	s64 passed, offset;

	LOCK_SCOPE(&dev->lock);
	if (!s->left_ns || s->clock == RTC_CLOCK_VIRTUAL ||
	    __builtin_sub_overflow(clock_of(s), s->left_ns, &passed) ||
	    __builtin_add_overflow(s->offset_ns, passed, &offset) || !is_offset(offset))
		return;
	s->left_ns = 0;
	s->offset_ns = offset;
	update(s);
}

/* --- the device ------------------------------------------------------------------ */

static int rtc_init(struct device *dev, struct error *err)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	irq_line_init(&s->line, dev->machine->irq, ISA_IRQ);
	timer_init(&s->event, dev->machine->clock, event_fired);
	timer_init(&s->periodic, dev->machine->clock, periodic_fired);
	fill_cmos(s);
	set_wall_ns(s, (s64)time(NULL) * SECOND);
	return dev_map_pio(dev, &s->ports, 0x70, 2, &rtc_ops, err);
}

/* The reset pin: interrupts off; clock and memory run on, from the battery. */
static void rtc_reset(struct device *dev)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	judge_flags(s);
	s->index = 0;
	s->cmos[REG_B] &= (u8) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
	s->cmos[REG_C] = 0;
	update(s);
}

static void rtc_fini(struct device *dev)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	timer_del(&s->event);
	timer_del(&s->periodic);
	irq_line_set(&s->line, false);
	bus_unmap(s->ports);
}

static void rtc_pre_save(struct device *dev)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	judge_flags(s);
	update_irq(s);
	if (is_running(s))
		store_time(s, wall_second(s));
}

static int rtc_state_check(const void *loaded, struct error *err)
{
	const struct rtc *s = loaded;

	if (s->index > INDEX_MASK)
		return err_set(err, -EINVAL, "mc146818rtc: index is %u, expected 0..%u", s->index,
			       INDEX_MASK);
	if (!is_offset(s->offset_ns))
		return err_set(err, -EINVAL, "mc146818rtc: offset_ns is out of range");
	return 0;
}

/* Second and period counters that the file may lie about are made anew. */
static void rtc_post_load(struct device *dev)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	s->seen_ns = clock_now(dev->machine->clock);
	s->seen_second = wall_second(s);
	if (s->clock == RTC_CLOCK_MONOTONIC)
		s->left_ns = 0; /* of another boot, perhaps */
	update(s);
}

static const struct state_field rtc_state[] = {
	STATE(struct rtc, index),
	STATE_ARRAY(struct rtc, cmos),
	STATE(struct rtc, offset_ns),
	STATE_OPTIONAL(struct rtc, left_ns),
	STATE_END,
};

const struct device_class rtc_class = {
	.name = "mc146818rtc",
	.help = "real-time clock and CMOS memory",
	.size = sizeof(struct rtc),
	.bus = DEVICE_ON_BOARD,
	.init = rtc_init,
	.reset = rtc_reset,
	.fini = rtc_fini,
	.state = rtc_state,
	.state_check = rtc_state_check,
	.pre_save = rtc_pre_save,
	.post_load = rtc_post_load,
	.pause = rtc_pause,
	.resume = rtc_resume,
};
