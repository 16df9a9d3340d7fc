#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Processor time of the calling thread: what work costs, however busy the machine is.
enum ThreadClock {
  static var now: Duration {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
  }
}

extension Duration {
  /// In whole nanoseconds; the largest number for what is longer than three centuries.
  var nanoseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds > Int64.max / 1_000_000_000 - 1
      ? .max : seconds * 1_000_000_000 + attoseconds / 1_000_000_000
  }
}
