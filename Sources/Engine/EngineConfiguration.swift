import CPUBackend
import KVQuantization
import ModelFamilies

/// In which order waiting requests of equal priority start.
public enum SchedulingPolicy: String, CaseIterable, Hashable, Sendable {
  /// First come, first served.
  case fcfs
  /// Longest cached prefix first; who was passed over often enough comes first.
  case longestPrefix = "lpm"
}

/// How the pool gets its size.
public enum PoolSize: Hashable, Sendable {
  /// A share of the available memory, at most what all running requests can use.
  case automatic
  /// `--max-total-tokens`
  case tokens(Int)
  /// `--kv-cache-memory`, bytes
  case memory(Int)
  /// `--mem-fraction-static`: a share of the memory that is available now
  case fraction(Double)
}

/// Everything about an engine but its model. Wire names are those of the command line.
public struct EngineConfiguration: Hashable, Sendable {
  /// --kv-cache-dtype, -k, -v
  public let recipes: CacheRecipes
  /// --page-size: tokens in a page
  public let pageSize: Int
  public let poolSize: PoolSize
  /// --chunked-prefill-size: prompt tokens in one step
  public let chunkedPrefillSize: Int
  /// --max-running-requests: sequences in one step
  public let maxRunningRequests: Int
  /// --max-queued-requests: requests that may wait
  public let maxQueuedRequests: Int
  /// --schedule-policy
  public let schedulingPolicy: SchedulingPolicy
  /// --disable-radix-cache turns it off
  public let sharesPrefixes: Bool
  /// --swap-space: bytes of host memory for preempted sequences
  public let swapSpace: Int
  /// --context-length: below the model's own
  public let contextLength: Int?
  /// --threads; nil takes all cores
  public let threadCount: Int?
  /// --attention-backend
  public let attentionBackend: String?
  /// --speculative-algorithm; nil computes one token a step
  public let speculation: Speculation?
  /// Checks the books after every step: for tests.
  public let checksIntegrity: Bool
  /// --kv-cache-scales, --kv-scale-convention
  public var kvScales = KVScaleRequest()
  /// --attention-precision
  public var attentionPrecision = AttentionPrecision.full

  /// - Throws: `EngineError.invalidConfiguration`, which names the option, its range and the value.
  public init(
    recipes: CacheRecipes = CacheRecipes(.nvfp4), pageSize: Int = 64, poolSize: PoolSize = .automatic,
    chunkedPrefillSize: Int = 512, maxRunningRequests: Int = 64, maxQueuedRequests: Int = 8192,
    schedulingPolicy: SchedulingPolicy = .fcfs, sharesPrefixes: Bool = true, swapSpace: Int = 0,
    contextLength: Int? = nil, threadCount: Int? = nil, attentionBackend: String? = nil,
    speculation: Speculation? = nil,
    checksIntegrity: Bool = false
  ) throws(EngineError) {
    func check(_ valid: Bool, _ option: String, _ expected: String, _ found: Any) throws(EngineError) {
      if !valid { throw .invalidConfiguration(option: option, expected: expected, found: "\(found)") }
    }
    try check(
      pageSize > 0 && pageSize % 16 == 0 && pageSize <= 4096, "--page-size", "a multiple of 16 up to 4096", pageSize)
    switch poolSize {
    case .automatic: break
    case .tokens(let count):
      try check(count >= pageSize, "--max-total-tokens", "at least one page of \(pageSize)", count)
    case .memory(let bytes): try check(bytes > 0, "--kv-cache-memory", "a positive number of bytes", bytes)
    case .fraction(let share):
      try check(share > 0 && share <= 1, "--mem-fraction-static", "a number above 0, up to 1", share)
    }
    try check(
      (1...1 << 20).contains(chunkedPrefillSize), "--chunked-prefill-size", "1 to 1048576", chunkedPrefillSize)
    try check((1...65536).contains(maxRunningRequests), "--max-running-requests", "1 to 65536", maxRunningRequests)
    try check(maxQueuedRequests > 0, "--max-queued-requests", "a positive number", maxQueuedRequests)
    try check(swapSpace >= 0, "--swap-space", "0 or a positive number of bytes", swapSpace)
    try check(contextLength ?? 1 > 0, "--context-length", "a positive number", contextLength ?? 0)
    try check((1...1024).contains(threadCount ?? 1), "--threads", "1 to 1024", threadCount ?? 0)
    self.recipes = recipes
    self.pageSize = pageSize
    self.poolSize = poolSize
    self.chunkedPrefillSize = chunkedPrefillSize
    self.maxRunningRequests = maxRunningRequests
    self.maxQueuedRequests = maxQueuedRequests
    self.schedulingPolicy = schedulingPolicy
    self.sharesPrefixes = sharesPrefixes
    self.swapSpace = swapSpace
    self.contextLength = contextLength
    self.threadCount = threadCount
    self.attentionBackend = attentionBackend
    self.speculation = speculation
    self.checksIntegrity = checksIntegrity
  }
}
