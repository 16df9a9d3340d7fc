import CUDASupport

/// Microseconds of one call: median, least and greatest over replays.
struct Timing {
  let median: Double
  let least: Double
  let greatest: Double
}

/// Times GPU work as the engine runs it: as a graph, replayed. A graph holds many calls, so that what a replay itself costs is
/// shared among them; calls rotate over input sets, so that small inputs don't come from the cache.
struct GraphTimer {
  let replays: Int

  /// - Parameters:
  ///   - calls: calls in a graph; the body gets the number of the call, to choose its input set by.
  func time(
    calls: Int, on stream: borrowing CUDAStream, _ body: (borrowing CUDAStream, Int) throws(CUDAError) -> Void
  ) throws(CUDAError) -> Timing {
    let graph = try CUDAGraph.record(on: stream) { stream throws(CUDAError) in
      for call in 0..<calls { try body(stream, call) }
    }
    let start = try CUDAEvent(stream.context)
    let end = try CUDAEvent(stream.context)
    for _ in 0..<2 { try graph.replay(on: stream) }
    try stream.synchronize()
    var samples: [Double] = []
    for _ in 0..<replays {
      try start.record(on: stream)
      try graph.replay(on: stream)
      try end.record(on: stream)
      try end.synchronize()
      samples.append(try end.microseconds(since: start) / Double(calls))
    }
    samples.sort()
    return Timing(median: samples[samples.count / 2], least: samples[0], greatest: samples[samples.count - 1])
  }

  /// Calls for a graph that runs about four milliseconds.
  static func calls(estimatedMicroseconds: Double) -> Int { min(64, max(4, Int(4000 / max(estimatedMicroseconds, 1)))) }
}

extension JSONLine {
  mutating func add(_ time: Timing) {
    add("us", time.median, digits: 2)
    add("us_least", time.least, digits: 2)
    add("us_greatest", time.greatest, digits: 2)
  }
}
