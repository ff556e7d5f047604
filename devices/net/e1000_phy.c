/* e1000's EEPROM (three-wire and by register) and its PHY, a Marvell 88E1011: Software
 * Developer's Manual, sections 5.3 (access), 5.6 (contents), 8.3 and 13.5 (PHY).
 * Thread: a vCPU, dev.lock held. */
#include "devices/net/e1000_int.h"

#define EECD_SK	     1
#define EECD_CS	     2
#define EECD_DI	     4
#define EECD_DO	     8
#define EECD_REQ     0x40
#define EECD_GNT     0x80
#define EECD_PRES    0x100
#define EECD_FWE_ON  0x20
#define EECD_WIRES   (EECD_SK | EECD_CS | EECD_DI)
#define EERD_START   1
#define EERD_DONE    0x10
#define EEPROM_SUM   0xbaba
#define OPCODE_READ  6 /* start bit and the two of the operation */
#define ADDRESS_BITS 6

#define MDIC_READ      (2u << 26)
#define MDIC_WRITE     (1u << 26)
#define MDIC_READY     (1u << 28)
#define MDIC_INTERRUPT (1u << 29)
#define MDIC_ERROR     (1u << 30)
#define PHY_ADDRESS    1

enum {
	PHY_CONTROL = 0,
	PHY_STATUS = 1,
	PHY_ID1 = 2,
	PHY_ID2 = 3,
	PHY_ADVERTISE = 4,
	PHY_PARTNER = 5,
	PHY_EXPANSION = 6,
	PHY_1000_CONTROL = 9,
	PHY_1000_STATUS = 10,
	PHY_EXTENDED = 15,
	PHY_SPECIFIC_CONTROL = 16,
	PHY_SPECIFIC_STATUS = 17,
	PHY_EXT_CONTROL = 20,
};
#define PHY_CONTROL_RESTART 0x0200
#define PHY_CONTROL_RESET   0x8000
#define PHY_STATUS_LINK	    0x0004
#define PHY_STATUS_DONE	    0x0020
#define PHY_SPECIFIC_LINK   0x0400

/* --- EEPROM ---------------------------------------------------------------------------- */

void e1000_eeprom_init(struct e1000 *e)
{
	/* Section 5.6: identification, and defaults of the control registers. */
	static const struct {
		u8 word;
		u16 value;
	} words[] = {{0x03, 0x0000}, {0x05, 0x0000}, {0x08, 0x3000}, {0x09, 0x1000}, {0x0a, 0x6403},
		     {0x0b, 0x100e}, {0x0c, 0x8086}, {0x0d, 0x100e}, {0x0e, 0x8086}, {0x0f, 0x3040},
		     {0x10, 0x0008}, {0x11, 0x2000}, {0x12, 0x7e14}, {0x13, 0x0048}, {0x14, 0x1000},
		     {0x15, 0x00d8}, {0x16, 0x0000}, {0x17, 0x2700}, {0x18, 0x6cc9}, {0x19, 0x3150},
		     {0x1a, 0x0722}, {0x1b, 0x040b}, {0x1c, 0x0984}, {0x1d, 0x0000}, {0x1e, 0xc000},
		     {0x1f, 0x0706}};
	u16 sum = 0;

	memset(e->eeprom, 0, sizeof(e->eeprom));
	for (unsigned i = 0; i < ARRAY_LEN(words); i++)
		e->eeprom[words[i].word] = words[i].value;
	for (unsigned i = 0; i < 3; i++)
		e->eeprom[i] = (u16)(e->nic.mac[2 * i] | e->nic.mac[2 * i + 1] << 8);
	for (unsigned i = 0; i < E1000_EEPROM_WORDS - 1; i++)
		sum = (u16)(sum + e->eeprom[i]);
	e->eeprom[E1000_EEPROM_WORDS - 1] = (u16)(EEPROM_SUM - sum);
}

u32 e1000_read_eecd(const struct e1000 *e)
{
	u32 eecd = e1000_get(e, R_EECD) & (EECD_WIRES | EECD_REQ);
	bool out = true; /* the line floats high */

	/* Low before the first bit, then the highest bit first. */
	if (e->eeprom_reading)
		out = e->eeprom_bits && e->eeprom[e->eeprom_in] >> (16 - e->eeprom_bits) & 1;
	if (eecd & EECD_REQ)
		eecd |= EECD_GNT;
	return eecd | EECD_PRES | EECD_FWE_ON | (out ? EECD_DO : 0);
}

/* A rising clock edge while selected: a bit goes in, or while reading one comes out. */
static void clock_in(struct e1000 *e, bool bit)
{
	if (e->eeprom_reading) {
		if (++e->eeprom_bits <= 16)
			return;
		e->eeprom_bits = 1; /* the next word follows by itself */
		e->eeprom_in = (e->eeprom_in + 1) & (E1000_EEPROM_WORDS - 1);
		return;
	}
	e->eeprom_in = e->eeprom_in << 1 | bit;
	if (e->eeprom_in >> ADDRESS_BITS != OPCODE_READ)
		return;
	e->eeprom_in &= E1000_EEPROM_WORDS - 1;
	e->eeprom_reading = true;
	e->eeprom_bits = 0;
}

void e1000_write_eecd(struct e1000 *e, u32 value)
{
	u32 old = e1000_get(e, R_EECD);
	bool selected = old & EECD_CS && value & EECD_CS;

	e1000_put(e, R_EECD, value & (EECD_WIRES | EECD_REQ));
	if (!selected) {
		e->eeprom_in = 0;
		e->eeprom_bits = 0;
		e->eeprom_reading = false;
	}
	if (value & EECD_CS && value & ~old & EECD_SK)
		clock_in(e, value & EECD_DI);
}

void e1000_write_eerd(struct e1000 *e, u32 value)
{
	u32 word = value >> 8 & 0xff;

	if (!(value & EERD_START))
		return;
	e1000_put(e, R_EERD,
		  word << 8 | EERD_DONE |
			  (word < E1000_EEPROM_WORDS ? (u32)e->eeprom[word] << 16 : 0));
}

/* --- PHY ---------------------------------------------------------------------------------- */

void e1000_phy_reset(struct e1000 *e)
{
	memset(e->phy, 0, sizeof(e->phy));
	e->phy[PHY_CONTROL] = 0x1140; /* autonegotiation, full duplex, 1000 Mb/s */
	e->phy[PHY_STATUS] = 0x7949;  /* what it can, and extended registers */
	e->phy[PHY_ID1] = 0x0141;
	e->phy[PHY_ID2] = 0x0c20;
	e->phy[PHY_ADVERTISE] = 0x0de1;
	e->phy[PHY_PARTNER] = 0x0de0;
	e->phy[PHY_EXPANSION] = 0x0001;
	e->phy[PHY_1000_CONTROL] = 0x0e00;
	e->phy[PHY_1000_STATUS] = 0x3c00;
	e->phy[PHY_EXTENDED] = 0x3000;
	e->phy[PHY_SPECIFIC_CONTROL] = 0x0360;
	e->phy[PHY_SPECIFIC_STATUS] = 0xa800; /* resolved to 1000 Mb/s, full duplex */
	e->phy[PHY_EXT_CONTROL] = 0x0d60;
	e1000_phy_link(e, net_link_is_up(&e->nic.end));
}

/* Negotiating takes no time here. */
void e1000_phy_link(struct e1000 *e, bool up)
{
	e->phy[PHY_STATUS] &= (u16) ~(PHY_STATUS_LINK | PHY_STATUS_DONE);
	e->phy[PHY_SPECIFIC_STATUS] &= (u16)~PHY_SPECIFIC_LINK;
	if (!up)
		return;
	e->phy[PHY_STATUS] |= PHY_STATUS_LINK | PHY_STATUS_DONE;
	e->phy[PHY_SPECIFIC_STATUS] |= PHY_SPECIFIC_LINK;
}

static void write_phy(struct e1000 *e, unsigned reg, u16 value)
{
	switch (reg) {
	case PHY_CONTROL:
		if (value & PHY_CONTROL_RESET) {
			e1000_phy_reset(e);
			return;
		}
		e->phy[reg] = value & (u16)~PHY_CONTROL_RESTART;
		if (value & PHY_CONTROL_RESTART && e1000_link_up(e))
			e1000_cause(e, ICR_LSC);
		break;
	case PHY_STATUS:
	case PHY_ID1:
	case PHY_ID2:
	case PHY_PARTNER:
	case PHY_EXPANSION:
	case PHY_1000_STATUS:
	case PHY_EXTENDED:
	case PHY_SPECIFIC_STATUS: break;
	default: e->phy[reg] = value;
	}
}

void e1000_write_mdic(struct e1000 *e, u32 value)
{
	unsigned reg = value >> 16 & 31;
	bool ours = (value >> 21 & 31) == PHY_ADDRESS;

	value &= ~(MDIC_READY | MDIC_ERROR);
	if (!ours)
		value |= MDIC_ERROR;
	else if (value & MDIC_READ)
		value = (value & 0xffff0000) | e->phy[reg];
	else if (value & MDIC_WRITE)
		write_phy(e, reg, (u16)value);
	e1000_put(e, R_MDIC, value | MDIC_READY);
	if (value & MDIC_INTERRUPT)
		e1000_cause(e, ICR_MDAC);
}
