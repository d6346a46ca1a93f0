/* support/tile_traps.c: AMX instructions on processors without AMX. Each raises SIGILL; the handler reads which one it was from the
 * bytes at the program counter, lets support/tiles.c do it, and goes on behind it. So the compiled kernel is what is tested.
 *
 * Form: C4, three bytes of VEX (128 bits, W 0, opcodes 0F 38), opcode, ModRM, and of an operand in memory SIB and displacement.
 */
#include "support/tiles.h"

#if defined(__x86_64__) && defined(__linux__)
#include <signal.h>
#include <string.h>
#include <ucontext.h>

typedef struct instruction {
    int prefix; /* 0 none, 1 66, 2 F3, 3 F2 */
    int opcode, mod, reg, rm, third;
    int64_t address, stride; /* of an operand in memory */
    int length;
} instruction;

static int64_t general(const ucontext_t *context, int number)
{
    static const int places[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return context->uc_mcontext.gregs[places[number]];
}

static int32_t displacement(const uint8_t *at, int bytes)
{
    int32_t wide = 0;
    if (bytes == 1)
        return (int8_t)*at;
    memcpy(&wide, at, (size_t)bytes);
    return wide;
}

/* Tile loads and stores: the index register holds the stride. */
static void memory_operand(const ucontext_t *context, const uint8_t *code, instruction *i)
{
    int high_index = code[1] & 0x40 ? 0 : 8, high_base = code[1] & 0x20 ? 0 : 8, base = i->rm, bytes;
    int64_t from;
    i->stride = 0;
    if (base == 4) {
        int sib = code[5], index = (sib >> 3 & 7) + high_index;
        i->length++;
        base = sib & 7;
        i->stride = index == 4 ? 0 : general(context, index) * (1 << (sib >> 6));
    }
    bytes = i->mod == 1 ? 1 : i->mod == 2 || base == 5 ? 4 : 0;
    bool next = i->mod == 0 && i->rm == 5; /* relative to the next instruction */
    bool none = i->mod == 0 && base == 5;
    from = displacement(code + i->length, bytes);
    i->length += bytes;
    from += next   ? context->uc_mcontext.gregs[REG_RIP] + i->length
            : none ? 0
                   : general(context, base + high_base);
    i->address = from;
}

static bool decode(const ucontext_t *context, instruction *i)
{
    const uint8_t *code = (const uint8_t *)context->uc_mcontext.gregs[REG_RIP];
    if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0)
        return false;
    *i = (instruction){.prefix = code[2] & 3, .opcode = code[3], .length = 5};
    i->mod = code[4] >> 6, i->reg = code[4] >> 3 & 7, i->rm = code[4] & 7;
    i->third = ~code[2] >> 3 & 15;
    if (i->mod != 3)
        memory_operand(context, code, i);
    return true;
}

static bool carry_out(const instruction *i)
{
    int which = i->opcode << 4 | i->prefix << 1 | (i->mod == 3);
    switch (which) {
    case 0x490:
        tile_configure((const void *)i->address);
        return true;
    case 0x491:
        tile_release();
        return true;
    case 0x497:
        tile_zero(i->reg);
        return true;
    case 0x4b4:
        tile_store(i->reg, (void *)i->address, i->stride);
        return true;
    case 0x4b6:
        tile_load(i->reg, (const void *)i->address, i->stride);
        return true;
    case 0x5c5:
        tile_dot(i->reg, i->rm, i->third);
        return true;
    default:
        return false;
    }
}

static struct sigaction before;

static void trapped(int signal_number, siginfo_t *info, void *machine)
{
    (void)info;
    ucontext_t *context = machine;
    instruction i;
    if (decode(context, &i) && carry_out(&i))
        context->uc_mcontext.gregs[REG_RIP] += i.length;
    else
        (void)sigaction(signal_number, &before, NULL); /* raised again, by somebody else's instruction */
}

bool tile_traps_begin(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    return sigaction(SIGILL, &action, &before) == 0;
}

void tile_traps_end(void)
{
    (void)sigaction(SIGILL, &before, NULL);
}
#else
bool tile_traps_begin(void)
{
    return false;
}

void tile_traps_end(void)
{
}
#endif
