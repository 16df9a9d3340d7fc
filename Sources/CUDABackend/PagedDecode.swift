import CKernelSources
import CUDASupport
import KVQuantization
import PagedCache

/// Decode attention, planned once per shape and run many times.
///
/// The plan checks everything, compiles the kernel and takes its workspace; a run is one launch. Lengths and page tables are read
/// from GPU memory, so a recorded graph stays valid while they change, up to the plan's batch and context length.
/// A request's result has the same bits in any batch: the cuts of its context depend on its length alone.
public struct PagedDecode: ~Copyable, Sendable {
  /// What a plan is made for.
  public struct Configuration: Hashable, Sendable {
    public var layout: MHALayout
    public var queryHeadCount: Int
    /// New tokens of each request, 1 to 8; query i sees all but the last queryLength - 1 - i tokens.
    public var queryLength: Int
    public var queryType: ActivationType
    public var outputType: ActivationType
    /// Factor on the scores, usually 1 / sqrt(head_dim); decode scales come with the layer.
    public var softmaxScale: Float
    public var maximumBatch: Int
    public var maximumContextLength: Int
    public var splitting: Splitting

    public init(
      layout: MHALayout, queryHeadCount: Int, queryLength: Int = 1, queryType: ActivationType = .bf16,
      outputType: ActivationType = .bf16, softmaxScale: Float, maximumBatch: Int, maximumContextLength: Int,
      splitting: Splitting
    ) {
      self.layout = layout
      self.queryHeadCount = queryHeadCount
      self.queryLength = queryLength
      self.queryType = queryType
      self.outputType = outputType
      self.softmaxScale = softmaxScale
      self.maximumBatch = maximumBatch
      self.maximumContextLength = maximumContextLength
      self.splitting = splitting
    }
  }

  /// How a request's context is cut; part of the arithmetic, so it must not change from step to step.
  public struct Splitting: Hashable, Sendable {
    public let target: Int
    public let minimumTokens: Int

    public init(target: Int, minimumTokens: Int) {
      self.target = target
      self.minimumTokens = minimumTokens
    }

    /// For a GPU: one long request's splits give each of its teams of warps, two a multiprocessor, one to begin with. The shortest are
    /// a compromise between one request alone and a batch, measured on an H100 (docs/performance-gpu.md).
    public init(device: CUDADevice, kvHeadCount: Int) {
      let target = max(1, min(Int(NB_MAXIMUM_SPLITS), 2 * device.multiprocessorCount / max(kvHeadCount, 1)))
      self.init(target: target, minimumTokens: 2048)
    }

    /// Splits of a request of this many tokens in grouped-query attention.
    public func count(contextLength: Int) -> Int {
      Int(
        nb_gqa_split_plan_of(
          Int32(clamping: contextLength), Int32(clamping: target), Int32(clamping: minimumTokens)
        ).count)
    }

    /// The most splits of any request up to this length in grouped-query attention.
    package func maximumCount(contextLength: Int) -> Int {
      Int(
        nb_gqa_maximum_split_count(
          Int32(clamping: contextLength), Int32(clamping: target), Int32(clamping: minimumTokens)))
    }
  }

  /// Addresses in GPU memory, and strides, of one run.
  public struct Call: Hashable, Sendable {
    /// [batch * queryLength, queryHeadCount, head_dim] queries, rows aligned to 16 bytes.
    public var queries: UInt64
    /// The results, in the same shape.
    public var output: UInt64
    /// [batch * queryLength, queryHeadCount] float32 natural logarithm of the sum of exponentials; 0 if not wanted.
    public var logSumExp: UInt64 = 0
    /// Page 0's record of the layer (`DevicePagePool.address(layer:)`).
    public var cache: UInt64
    /// Bytes from page to page (`DevicePagePool.pageStride`).
    public var pageStride: Int
    /// [batch, pageTableStride] int32
    public var pageTable: UInt64
    public var pageTableStride: Int
    /// [batch] int32 tokens that the last query of a request sees, itself included.
    public var contextLengths: UInt64
    public var batch: Int
    public var scales: DecodeScales
    /// Elements from token to token; nil for rows without gaps.
    public var queryStride: Int?
    public var outputStride: Int?

    public init(
      queries: UInt64, output: UInt64, cache: UInt64, pageStride: Int, pageTable: UInt64, pageTableStride: Int,
      contextLengths: UInt64, batch: Int, scales: DecodeScales
    ) {
      self.queries = queries
      self.output = output
      self.cache = cache
      self.pageStride = pageStride
      self.pageTable = pageTable
      self.pageTableStride = pageTableStride
      self.contextLengths = contextLengths
      self.batch = batch
      self.scales = scales
    }
  }

  public let configuration: Configuration
  public let kernel: Kernel
  public let shape: LaunchShape
  private let workspace: DeviceBuffer<UInt8>
  /// Tickets of the blocks that finish a row tile; zero before and after every launch.
  private let counters: DeviceBuffer<UInt32>

  /// The kernel that serves a layout. Up to 8 query rows a KV head take the narrow tile.
  public static func instance(layout: MHALayout, queryRows: Int) -> KernelInstance {
    KernelInstance(
      file: "decode.cu", entry: "nb_decode",
      defines: [
        .init("NB_RECIPE_K", layout.recipeK.decoder.rawValue), .init("NB_RECIPE_V", layout.recipeV.decoder.rawValue),
        .init("NB_DIM", layout.headDimension), .init("NB_ROWS", queryRows <= 8 ? 8 : 16),
      ])
  }

  /// - Throws: `.invalidPlan` with every reason why the kernels can't do this, `.compilation`, `.outOfMemory`.
  public init(
    _ configuration: Configuration, library: KernelLibrary, on stream: borrowing CUDAStream
  ) throws(CUDAError) {
    try Self.validate(configuration)
    let layout = configuration.layout
    let group = configuration.queryHeadCount / layout.kvHeadCount
    let kernel = try library.kernel(Self.instance(layout: layout, queryRows: group * configuration.queryLength))
    let information = try kernel.constant("nb_decode_configuration", as: nb_decode_information.self, on: stream)
    guard information.layout_version == NB_KERNEL_LAYOUT_VERSION else {
      throw .invalidPlan(
        """
        the decode kernel reads record layout \(information.layout_version), this program writes \(NB_KERNEL_LAYOUT_VERSION); \
        check NIBBLE_KERNEL_DIR
        """)
    }
    let (threads, sharedBytes) = (Int(information.threads), Int(information.shared_bytes))
    try kernel.allowSharedMemory(sharedBytes)
    let resident = try kernel.blocksPerMultiprocessor(threads: threads, sharedBytes: sharedBytes)
    guard resident > 0 else {
      throw .invalidPlan(
        """
        \(kernel.instance) asks for \(threads) threads and \(sharedBytes) bytes of shared memory a block, more than \
        \(library.context.device.name) has; try another head dimension or the cpu backend
        """)
    }
    let tiles = nb_row_tiles(Int32(group), Int32(configuration.queryLength), information.rows)
    let splits =
      configuration.maximumBatch
      * configuration.splitting.maximumCount(contextLength: configuration.maximumContextLength)
    let bytes = nb_decode_workspace_bytes(
      Int64(splits), Int32(layout.kvHeadCount), tiles, information.rows, Int32(layout.headDimension))
    let workspace = try DeviceBuffer<UInt8>(library.context, count: Int(bytes))
    let counters = try DeviceBuffer<UInt32>(
      library.context,
      count: Int(nb_decode_counter_count(Int32(configuration.maximumBatch), Int32(layout.kvHeadCount), tiles)))
    try counters.fill(byte: 0, on: stream)
    self.configuration = configuration
    self.kernel = kernel
    shape = LaunchShape(
      grid: .init(library.context.device.multiprocessorCount * resident), block: .init(threads),
      sharedBytes: sharedBytes, overlapsPrevious: library.context.device.launchesDependents)
    self.workspace = workspace
    self.counters = counters
  }

  package static func validate(_ configuration: Configuration) throws(CUDAError) {
    try CUDAAttention.validate(layout: configuration.layout, queryHeadCount: configuration.queryHeadCount)
    try validate(
      queryLength: configuration.queryLength, maximumBatch: configuration.maximumBatch,
      maximumContextLength: configuration.maximumContextLength, splitting: configuration.splitting,
      softmaxScale: configuration.softmaxScale)
  }

  /// What does not depend on the layout.
  static func validate(
    queryLength: Int, maximumBatch: Int, maximumContextLength: Int, splitting: Splitting, softmaxScale: Float
  ) throws(CUDAError) {
    guard CUDAAttention.queryLengths.contains(queryLength) else {
      throw .invalidPlan("a decode of \(queryLength) new tokens a request; expected 1 to 8, or prefill")
    }
    guard (1...CUDAAttention.maximumBatch).contains(maximumBatch) else {
      throw .invalidPlan(
        "a batch of \(maximumBatch) requests; expected 1 to \(CUDAAttention.maximumBatch), try several launches")
    }
    guard maximumContextLength >= queryLength, maximumContextLength <= 1 << 30 else {
      throw .invalidPlan(
        """
        a context of \(maximumContextLength) tokens; expected at least the \(queryLength) new ones, and at most \(1 << 30)
        """)
    }
    guard splitting.target > 0, splitting.target <= NB_MAXIMUM_SPLITS, splitting.minimumTokens > 0 else {
      throw .invalidPlan(
        """
        up to \(splitting.target) splits of \(splitting.minimumTokens) tokens or more; expected 1 to \(NB_MAXIMUM_SPLITS) splits \
        of at least one token
        """)
    }
    guard softmaxScale.isFinite else {
      throw .invalidPlan("a softmax scale of \(softmaxScale); expected a finite one")
    }
  }

  /// Bytes of GPU memory that the plan holds.
  public var workspaceBytes: Int { workspace.byteCount + counters.byteCount }

  /// Queues one launch.
  /// - Throws: `.invalidPlan` for a batch beyond the plan's, `.launch`.
  public func run(_ call: Call, on stream: borrowing CUDAStream) throws(CUDAError) {
    let layout = configuration.layout
    guard (1...configuration.maximumBatch).contains(call.batch) else {
      throw .invalidPlan("a batch of \(call.batch) requests; the plan is for 1 to \(configuration.maximumBatch)")
    }
    let row = Int64(configuration.queryHeadCount * layout.headDimension)
    let arguments = nb_decode_arguments(
      queries: call.queries, output: call.output, log_sum_exp: call.logSumExp, cache: call.cache,
      page_table: call.pageTable, context_lengths: call.contextLengths, workspace: workspace.address,
      counters: counters.address, page_stride: Int64(call.pageStride),
      query_stride: call.queryStride.map { Int64($0) } ?? row,
      output_stride: call.outputStride.map { Int64($0) } ?? row,
      page_table_stride: Int32(clamping: call.pageTableStride), page_shift: layout.pageShift, batch: Int32(call.batch),
      kv_heads: Int32(layout.kvHeadCount), group: Int32(configuration.queryHeadCount / layout.kvHeadCount),
      query_length: Int32(configuration.queryLength), query_type: configuration.queryType.rawValue,
      output_type: configuration.outputType.rawValue, target_splits: Int32(clamping: configuration.splitting.target),
      minimum_split: Int32(clamping: configuration.splitting.minimumTokens), softmax_scale: configuration.softmaxScale,
      key_scale: layout.recipeK.usesDecodeScale ? call.scales.key : 1,
      value_scale: layout.recipeV.usesDecodeScale ? call.scales.value : 1, reserved: 0)
    let configuration = configuration
    try kernel.launch(arguments, shape: shape, on: stream) {
      """
      \(call.batch) requests of \(configuration.queryLength) new tokens, \(configuration.queryHeadCount) query heads, \
      \(layout.kernelDescription), up to \(configuration.maximumContextLength) tokens, \(configuration.queryType.name) queries \
      at \(call.queries), \(configuration.outputType.name) output at \(call.output), cache at \(call.cache), page table at \
      \(call.pageTable) with rows of \(call.pageTableStride)
      """
    }
  }
}
