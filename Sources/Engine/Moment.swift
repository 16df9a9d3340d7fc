#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A point in time as the engine's thread keeps it. `ContinuousClock.Instant` is opaque to the compiler, which would make every
/// copy of a value with one a call through its type's metadata.
struct Moment: Comparable {
  /// Since the system started.
  let nanoseconds: Int64

  static var now: Moment {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Moment(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }

  /// The same moment on both clocks.
  private static let origin = (moment: Moment.now, instant: ContinuousClock.now)

  var instant: ContinuousClock.Instant { Self.origin.instant + (self - Self.origin.moment) }

  static func < (a: Moment, b: Moment) -> Bool { a.nanoseconds < b.nanoseconds }
  static func - (a: Moment, b: Moment) -> Duration { .nanoseconds(a.nanoseconds - b.nanoseconds) }
  /// The last of all moments, where the sum is beyond it.
  static func + (a: Moment, b: Duration) -> Moment {
    let (sum, overflow) = a.nanoseconds.addingReportingOverflow(b.nanoseconds)
    return Moment(nanoseconds: overflow ? .max : sum)
  }
}
