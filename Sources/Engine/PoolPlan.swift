import PagedCache

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// How many pages a pool gets, and why: a pure function of configuration, geometry and available memory.
package struct PoolPlan: Hashable {
  let pageCount: Int
  let reason: String

  /// - Parameters:
  ///   - pageBytes: bytes of one page over all layers.
  ///   - contextLength: tokens that one sequence may have.
  ///   - availableMemory: bytes.
  ///   - totalMemory: bytes of the machine; more can't be asked for.
  /// - Throws: `EngineError.invalidConfiguration` for a pool or a swap space without a page, or larger than the machine's memory.
  static func resolve(
    _ configuration: EngineConfiguration, pageBytes: Int, contextLength: Int, availableMemory: Int,
    totalMemory: Int = PoolPlan.totalMemory
  ) throws(EngineError) -> PoolPlan {
    let limit = Int(Int32.max) / 2
    guard configuration.swapSpace <= totalMemory else { throw tooMuch("--swap-space", configuration.swapSpace) }
    guard configuration.swapSpace == 0 || configuration.swapSpace >= pageBytes else {
      throw tooLittle("--swap-space", configuration.swapSpace)
    }
    switch configuration.poolSize {
    case .tokens(let count):
      let most = totalMemory / pageBytes * configuration.pageSize
      guard count <= most else {
        throw .invalidConfiguration(
          option: "--max-total-tokens", expected: "at most \(most), which fill this machine's memory", found: "\(count)"
        )
      }
      return PoolPlan(
        pageCount: min(limit, (count + configuration.pageSize - 1) / configuration.pageSize),
        reason: "--max-total-tokens")
    case .memory(let bytes):
      guard bytes <= totalMemory else { throw tooMuch("--kv-cache-memory", bytes) }
      return try fit(bytes, "--kv-cache-memory")
    case .fraction(let share):
      return try fit(Int(Double(availableMemory) * share), "--mem-fraction-static")
    case .automatic:
      let sequence = (contextLength + configuration.pageSize - 1) / configuration.pageSize
      let wanted = max(1, sequence).multipliedReportingOverflow(by: configuration.maxRunningRequests)
      let fitting = max(1, availableMemory / 2 / pageBytes)
      if !wanted.overflow, wanted.partialValue <= min(fitting, limit) {
        return PoolPlan(pageCount: wanted.partialValue, reason: "all running requests at full context")
      }
      return PoolPlan(pageCount: min(fitting, limit), reason: "half of the available memory")
    }

    func tooMuch(_ option: String, _ bytes: Int) -> EngineError {
      .invalidConfiguration(option: option, expected: "at most this machine's \(totalMemory) bytes", found: "\(bytes)")
    }

    func tooLittle(_ option: String, _ bytes: Int) -> EngineError {
      .invalidConfiguration(
        option: option, expected: "at least one page of \(pageBytes) bytes", found: "\(bytes) bytes")
    }

    func fit(_ bytes: Int, _ option: String) throws(EngineError) -> PoolPlan {
      guard bytes >= pageBytes else { throw tooLittle(option, bytes) }
      return PoolPlan(pageCount: min(limit, bytes / pageBytes), reason: option)
    }
  }

  /// Memory that can be used without pushing others out, in bytes: free and reclaimable pages of the system.
  package static func availableMemory() -> Int {
    #if os(Linux)
      if let file = fopen("/proc/meminfo", "r") {
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, Int32(line.count), file) != nil {
          let words = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self).split(
            separator: " ")
          if words.first == "MemAvailable:", words.count > 1, let kibibytes = Int(words[1]) { return kibibytes * 1024 }
        }
      }
    #endif
    return totalMemory / 2
  }

  /// The machine's memory, in bytes.
  static var totalMemory: Int { Int(sysconf(Int32(_SC_PAGESIZE))) * Int(sysconf(Int32(_SC_PHYS_PAGES))) }
}
