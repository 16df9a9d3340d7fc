// A ring of slots in shared memory, filled by a producer warp and emptied by consumer warps, with a pair of mbarriers a slot. Copies
// are bulk copies where the architecture has them (sm_90 and later), cp.async elsewhere; they run ahead of the
// arithmetic by the ring's depth.
#pragma once

#include "ptx.cuh"

// compute-sanitizer's racecheck follows neither mbarriers nor bulk copies. For that tool alone, 1 copies by loads and stores and adds
// barriers of producer and consumers around each round of steps; the mbarriers stay. A clean run then says that all but the ring is in
// order, and of the ring nothing.
#ifndef NB_LOCKSTEP
#define NB_LOCKSTEP 0
#endif
#define NB_BULK_COPIES (__CUDA_ARCH__ >= 900 && !NB_LOCKSTEP)

NB_DEVICE void nb_barrier_arrive(uint32_t barrier) {
  asm volatile("{.reg .b64 state; mbarrier.arrive.shared.b64 state, [%0];}" ::"r"(barrier) : "memory");
}

struct nb_ring {
  uint32_t data;   // shared address of slot 0
  uint32_t full;   // shared addresses of the mbarriers of slot 0
  uint32_t empty;

  NB_DEVICE_MEMBER void initialize(int slot) const {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(full + 8 * slot), "r"(NB_BULK_COPIES ? 1 : 32) : "memory");
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(empty + 8 * slot) : "memory");
  }
  NB_DEVICE_MEMBER static void initialized() {
#if NB_BULK_COPIES
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
  }

  NB_DEVICE_MEMBER static bool passed(uint32_t barrier, uint32_t phase) {
    uint32_t done;
#if NB_BULK_COPIES
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, p;}"
                 : "=r"(done) : "r"(barrier), "r"(phase) : "memory");
#else
    asm volatile("{.reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p;}"
                 : "=r"(done) : "r"(barrier), "r"(phase) : "memory");
#endif
    return done != 0;
  }

  // Producer: whether a slot is free for its use in this phase.
  NB_DEVICE_MEMBER bool isFree(int slot, uint32_t phase) const { return passed(empty + 8 * slot, phase ^ 1); }

#if NB_BULK_COPIES
  // Producer, one thread: starts the copy of one or two pieces of global memory (multiples of 16 bytes; the second may be empty).
  NB_DEVICE_MEMBER void fetch(int slot, uint32_t destination, const uint8_t *first, int firstBytes, const uint8_t *second,
                              int secondBytes) const {
    uint32_t barrier = full + 8 * slot;
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(firstBytes + secondBytes) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(destination),
                 "l"(first), "r"(firstBytes), "r"(barrier)
                 : "memory");
    if (secondBytes > 0) {
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                       destination + firstBytes),
                   "l"(second), "r"(secondBytes), "r"(barrier)
                   : "memory");
    }
  }
#else
  // Producer, all threads of the warp.
  NB_DEVICE_MEMBER void fetch(int lane, int slot, uint32_t destination, const uint8_t *first, int firstBytes, const uint8_t *second,
                              int secondBytes) const {
    auto copy = [](uint32_t to, const uint8_t *from) {
#if NB_LOCKSTEP
      const uint4 x = *(const uint4 *)from;
      asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
#else
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
#endif
    };
    for (int i = lane * 16; i < firstBytes; i += 512) copy(destination + i, first + i);
    for (int i = lane * 16; i < secondBytes; i += 512) copy(destination + firstBytes + i, second + i);
#if NB_LOCKSTEP
    nb_barrier_arrive(full + 8 * slot);
#else
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(full + 8 * slot) : "memory");
#endif
  }
#endif

  // Consumer: waits until a slot's data is there.
  NB_DEVICE_MEMBER void wait(int slot, uint32_t phase) const {
    while (!passed(full + 8 * slot, phase)) {
    }
  }

  // Consumer, one thread: hands the slot back.
  NB_DEVICE_MEMBER void release(int slot) const { nb_barrier_arrive(empty + 8 * slot); }

  // Consumer: orders ordinary writes to a slot before a later bulk copy to it.
  NB_DEVICE_MEMBER void fence() const {
#if NB_BULK_COPIES
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
  }
};
