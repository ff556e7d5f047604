/* VGA registers: sequencer, graphics and attribute controller, CRTC, DAC, status.
 *
 * IBM VGA XGA Technical Reference, chapter 2 (registers at 3B0-3DF).  The CRTC and
 * status 1 answer at 3Bx or 3Dx as bit 0 of the miscellaneous output says.  The
 * retrace bits follow virtual time as a 70 Hz, 449-line screen would.
 * Thread: any vCPU with the device's lock. */
#include "devices/vga/vga_int.h"

#include "vmm/core/clock.h"

#define LINE_NS		31778u
#define LINE_DISPLAY_NS 25422u
#define LINES		449u
#define LINES_DISPLAYED 400u
#define RETRACE_FIRST	412u
#define RETRACE_END	414u

#define STATUS_BLANK	 0x01
#define STATUS_V_RETRACE 0x08

static u8 read_status_1(struct vga *v)
{
	u64 ns = clock_now(v->pci.dev.machine->clock) % ((u64)LINE_NS * LINES);
	unsigned line = (unsigned)(ns / LINE_NS);
	u8 status = 0;

	v->attr_data = false;
	if (line >= LINES_DISPLAYED || ns % LINE_NS >= LINE_DISPLAY_NS)
		status |= STATUS_BLANK;
	if (line >= RETRACE_FIRST && line < RETRACE_END)
		status |= STATUS_V_RETRACE;
	return status;
}

/* --- attribute controller --------------------------------------------------------- */

static void write_attr(struct vga *v, u8 value)
{
	static const u8 masks[ATTR_REGS] = {0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
					    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
					    0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f};
	unsigned index = v->attr_index & 0x1f;

	if (!v->attr_data)
		v->attr_index = value & 0x3f;
	else if (index < ATTR_REGS)
		v->attr[index] = value & masks[index];
	v->attr_data = !v->attr_data;
}

static u8 read_attr(const struct vga *v)
{
	unsigned index = v->attr_index & 0x1f;

	return index < ATTR_REGS ? v->attr[index] : 0;
}

/* --- DAC -------------------------------------------------------------------------- */

static void write_dac(struct vga *v, u8 value)
{
	v->dac_latch[v->dac_component] = value;
	if (++v->dac_component < 3)
		return;
	v->dac_component = 0;
	for (unsigned i = 0; i < 3; i++)
		v->palette[v->dac_index * 3 + i] =
			v->dac_latch[i] & (v->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC ? 0xff : 0x3f);
	v->dac_index++;
}

static u8 read_dac(struct vga *v)
{
	u8 value = v->palette[v->dac_index * 3 + v->dac_component];

	if (++v->dac_component == 3) {
		v->dac_component = 0;
		v->dac_index++;
	}
	return value;
}

static void set_dac_index(struct vga *v, u8 index, enum dac_state state)
{
	v->dac_index = index;
	v->dac_component = 0;
	v->dac_state = (u8)state;
}

/* --- indexed registers -------------------------------------------------------------- */

static void write_seq(struct vga *v, u8 value)
{
	static const u8 masks[SEQ_REGS] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};

	if (v->seq_index < SEQ_REGS)
		v->seq[v->seq_index] = value & masks[v->seq_index];
}

static void write_gr(struct vga *v, u8 value)
{
	static const u8 masks[GR_REGS] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

	if (v->gr_index < GR_REGS)
		v->gr[v->gr_index] = value & masks[v->gr_index];
}

static void write_crtc(struct vga *v, u8 value)
{
	u8 index = v->crtc_index;

	if (index >= CRTC_REGS)
		return;
	if (index <= CRTC_OVERFLOW && v->crtc[CRTC_V_SYNC_END] & 0x80) {
		if (index == CRTC_OVERFLOW) /* line compare bit 8 is not protected */
			v->crtc[index] = (u8)((v->crtc[index] & ~0x10) | (value & 0x10));
		return;
	}
	v->crtc[index] = value;
}

/* --- ports -------------------------------------------------------------------------- */

/* 3Bx and 3Dx are the same registers, one set of ports being off. */
static bool is_other_set(const struct vga *v, unsigned port)
{
	return (port >= 0x3b0 && port <= 0x3bf && v->misc & 1) || (port >= 0x3d0 && !(v->misc & 1));
}

u8 vga_port_read(struct vga *v, unsigned port)
{
	if (is_other_set(v, port))
		return 0xff;
	switch (port) {
	case 0x3c0: return v->attr_data ? 0 : v->attr_index;
	case 0x3c1: return read_attr(v);
	case 0x3c2: return 0x10; /* a monitor is there */
	case 0x3c4: return v->seq_index;
	case 0x3c5: return v->seq_index < SEQ_REGS ? v->seq[v->seq_index] : 0xff;
	case 0x3c6: return v->dac_mask;
	case 0x3c7: return v->dac_state;
	case 0x3c8: return v->dac_index;
	case 0x3c9: return read_dac(v);
	case 0x3ca: return v->feature;
	case 0x3cc: return v->misc;
	case 0x3ce: return v->gr_index;
	case 0x3cf: return v->gr_index < GR_REGS ? v->gr[v->gr_index] : 0xff;
	case 0x3b4:
	case 0x3d4: return v->crtc_index;
	case 0x3b5:
	case 0x3d5: return v->crtc_index < CRTC_REGS ? v->crtc[v->crtc_index] : 0xff;
	case 0x3ba:
	case 0x3da: return read_status_1(v);
	default: return 0xff;
	}
}

void vga_port_write(struct vga *v, unsigned port, u8 value)
{
	if (is_other_set(v, port))
		return;
	switch (port) {
	case 0x3c0: write_attr(v, value); break;
	case 0x3c2: v->misc = value & 0xef; break;
	case 0x3c4: v->seq_index = value & 0x1f; break;
	case 0x3c5: write_seq(v, value); break;
	case 0x3c6: v->dac_mask = value; break;
	case 0x3c7: set_dac_index(v, value, DAC_READS); break;
	case 0x3c8: set_dac_index(v, value, DAC_WRITES); break;
	case 0x3c9: write_dac(v, value); break;
	case 0x3ce: v->gr_index = value & 0x0f; break;
	case 0x3cf: write_gr(v, value); break;
	case 0x3b4:
	case 0x3d4: v->crtc_index = value & 0x3f; break;
	case 0x3b5:
	case 0x3d5: write_crtc(v, value); break;
	case 0x3ba:
	case 0x3da: v->feature = value & 0x08; break;
	default: break;
	}
}

static u64 ports_read(void *owner, u64 off, unsigned size)
{
	return vga_port_read(vga_of(owner), 0x3b0 + (unsigned)off);
}

static void ports_write(void *owner, u64 off, unsigned size, u64 value)
{
	vga_port_write(vga_of(owner), 0x3b0 + (unsigned)off, (u8)value);
}

const struct bus_ops vga_port_ops = {ports_read, ports_write, 1, 1};

void vga_regs_reset(struct vga *v)
{
	v->misc = v->feature = 0;
	v->seq_index = v->gr_index = v->crtc_index = v->attr_index = 0;
	memset(v->seq, 0, sizeof(v->seq));
	memset(v->gr, 0, sizeof(v->gr));
	memset(v->crtc, 0, sizeof(v->crtc));
	memset(v->attr, 0, sizeof(v->attr));
	v->attr_data = false;
	v->dac_mask = v->dac_state = v->dac_index = v->dac_component = 0;
	memset(v->dac_latch, 0, sizeof(v->dac_latch));
	memset(v->palette, 0, sizeof(v->palette));
	v->latch = 0;
}
