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
  package var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }

  /// In whole nanoseconds; the nearest number for what is longer than three centuries, to either side.
  var nanoseconds: Int64 {
    let (seconds, attoseconds) = components
    let bound = Int64.max / 1_000_000_000 - 1
    guard (-bound...bound).contains(seconds) else { return seconds < 0 ? .min : .max }
    return seconds * 1_000_000_000 + attoseconds / 1_000_000_000
  }
}
