import CKernelSources
import CUDASupport
import KVQuantization
import PagedCache

/// Decode attention of MLA in absorbed form, planned once per shape and run many times, as `PagedDecode`: a query is
/// (latent part, rotary part), a key (latent, rotary key), a value the latent.
///
/// A run is one launch, or two where a request may have several splits: the second merges them.
public struct PagedLatentDecode: ~Copyable, Sendable {
  /// What a plan is made for.
  public struct Configuration: Hashable, Sendable {
    public var layout: MLALayout
    public var queryHeadCount: Int
    /// New tokens of each request, 1 to 8; query i sees all but the last queryLength - 1 - i tokens.
    public var queryLength: Int
    public var queryType: ActivationType
    public var outputType: ActivationType
    /// Factor on the scores; decode scales come with the layer.
    public var softmaxScale: Float
    public var maximumBatch: Int
    public var maximumContextLength: Int
    public var splitting: PagedDecode.Splitting

    public init(
      layout: MLALayout, queryHeadCount: Int, queryLength: Int = 1, queryType: ActivationType = .bf16,
      outputType: ActivationType = .bf16, softmaxScale: Float, maximumBatch: Int, maximumContextLength: Int,
      splitting: PagedDecode.Splitting
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

    /// Tiles of 64 query rows.
    var rowTiles: Int {
      Int(nb_row_tiles(Int32(clamping: queryHeadCount), Int32(clamping: queryLength), NB_LATENT_ROWS))
    }
  }

  public let configuration: Configuration
  public let kernel: Kernel
  public let shape: LaunchShape
  /// Nil where no request can have two splits.
  private let merge: Kernel?
  /// Outputs of splits, then their sums.
  private let workspace: DeviceBuffer<Float>
  private let partialRows: Int

  public static func instance(layout: MLALayout) -> KernelInstance {
    KernelInstance(
      file: "latent_decode.cu", entry: "nb_latent_decode",
      defines: [
        .init("NB_RECIPE_LATENT", layout.recipeLatent.decoder.rawValue),
        .init("NB_RECIPE_ROPE", layout.recipeRope.decoder.rawValue),
      ])
  }

  public static let mergeInstance = KernelInstance(file: "latent_merge.cu", entry: "nb_latent_merge")

  /// - Throws: `.invalidPlan` with every reason why the kernels can't do this, `.compilation`, `.outOfMemory`.
  public init(
    _ configuration: Configuration, library: KernelLibrary, on stream: borrowing CUDAStream
  ) throws(CUDAError) {
    try Self.validate(configuration)
    let kernel = try library.kernel(Self.instance(layout: configuration.layout))
    let information = try kernel.constant(
      "nb_latent_decode_configuration", as: nb_latent_decode_information.self, on: stream)
    guard information.layout_version == NB_LATENT_LAYOUT_VERSION, information.rows == NB_LATENT_ROWS else {
      throw .invalidPlan(
        """
        the latent decode kernel reads record layout \(information.layout_version) in tiles of \(information.rows) rows, this \
        program expects \(NB_LATENT_LAYOUT_VERSION) and \(NB_LATENT_ROWS); check NIBBLE_KERNEL_DIR
        """)
    }
    let (threads, sharedBytes) = (Int(information.threads), Int(information.shared_bytes))
    try kernel.allowSharedMemory(sharedBytes)
    let resident = try kernel.blocksPerMultiprocessor(threads: threads, sharedBytes: sharedBytes)
    guard resident > 0 else {
      throw .invalidPlan(
        """
        \(kernel.instance) asks for \(threads) threads and \(sharedBytes) bytes of shared memory a block, more than \
        \(library.context.device.name) has; try the cpu backend
        """)
    }
    let splits = configuration.splitting.maximumLatentCount(contextLength: configuration.maximumContextLength)
    let merge = splits > 1 ? try library.kernel(Self.mergeInstance) : nil
    let rows = splits > 1 ? splits * configuration.maximumBatch * configuration.rowTiles * Int(NB_LATENT_ROWS) : 0
    let workspace = try DeviceBuffer<Float>(library.context, count: max(1, rows * (Int(NB_LATENT_DIM) + 2)))
    self.configuration = configuration
    self.kernel = kernel
    self.merge = merge
    self.workspace = workspace
    partialRows = rows
    shape = LaunchShape(
      grid: .init(library.context.device.multiprocessorCount * resident), block: .init(threads),
      sharedBytes: sharedBytes, overlapsPrevious: library.context.device.launchesDependents)
  }

  package static func validate(_ configuration: Configuration) throws(CUDAError) {
    try CUDAAttention.validate(layout: .mla(configuration.layout), queryHeadCount: configuration.queryHeadCount)
    try PagedDecode.validate(
      queryLength: configuration.queryLength, maximumBatch: configuration.maximumBatch,
      maximumContextLength: configuration.maximumContextLength, splitting: configuration.splitting,
      softmaxScale: configuration.softmaxScale)
  }

  /// Bytes of GPU memory that the plan holds.
  public var workspaceBytes: Int { workspace.byteCount }

  /// Queues a call.
  /// - Parameter call: its scales are the latent's and the rotary key's.
  /// - Throws: `.invalidPlan` for a batch beyond the plan's, `.launch`.
  public func run(_ call: PagedDecode.Call, on stream: borrowing CUDAStream) throws(CUDAError) {
    let configuration = configuration
    let layout = configuration.layout
    guard (1...configuration.maximumBatch).contains(call.batch) else {
      throw .invalidPlan("a batch of \(call.batch) requests; the plan is for 1 to \(configuration.maximumBatch)")
    }
    let heads = configuration.queryHeadCount
    let arguments = nb_latent_decode_arguments(
      queries: call.queries, output: call.output, log_sum_exp: call.logSumExp, cache: call.cache,
      page_table: call.pageTable, context_lengths: call.contextLengths, partial_outputs: workspace.address,
      partial_sums: workspace.address + UInt64(partialRows * layout.latentDimension * 4),
      page_stride: Int64(call.pageStride),
      query_stride: Int64(call.queryStride ?? heads * (layout.latentDimension + layout.ropeDimension)),
      output_stride: Int64(call.outputStride ?? heads * layout.latentDimension),
      page_table_stride: Int32(clamping: call.pageTableStride), page_shift: layout.pageShift, batch: Int32(call.batch),
      heads: Int32(heads), query_length: Int32(configuration.queryLength),
      query_type: configuration.queryType.rawValue, output_type: configuration.outputType.rawValue,
      target_splits: Int32(clamping: configuration.splitting.target),
      minimum_split: Int32(clamping: configuration.splitting.minimumTokens), softmax_scale: configuration.softmaxScale,
      latent_scale: layout.recipeLatent.usesDecodeScale ? call.scales.key : 1,
      rope_scale: layout.recipeRope.usesDecodeScale ? call.scales.value : 1)
    func text() -> String {
      """
      \(call.batch) requests of \(configuration.queryLength) new tokens, \(heads) query heads, \(layout.kernelDescription), up to \
      \(configuration.maximumContextLength) tokens, \(configuration.queryType.name) queries at \(call.queries), \
      \(configuration.outputType.name) output at \(call.output), cache at \(call.cache), page table at \(call.pageTable) with rows \
      of \(call.pageTableStride)
      """
    }
    try kernel.launch(arguments, shape: shape, on: stream, describing: text)
    guard let merge else { return }
    // Few rows: blocks share each of them. Many: a warp takes one. Either way the sums are the same.
    let rows = call.batch * configuration.queryLength * heads
    let isFew = rows <= 2 * kernel.context.device.multiprocessorCount
    let warps = Int(NB_LATENT_MERGE_THREADS) / 32
    let mergeShape = LaunchShape(
      grid: isFew ? .init(rows, layout.latentDimension / 128) : .init((rows + warps - 1) / warps),
      block: .init(Int(NB_LATENT_MERGE_THREADS)), overlapsPrevious: shape.overlapsPrevious)
    try merge.launch(arguments, shape: mergeShape, on: stream, describing: text)
  }
}

extension PagedDecode.Splitting {
  /// For latent attention, where a block takes 64 query rows and a multiprocessor one block: a long request gives each one piece. A
  /// block's start and end cost as much as the arithmetic of 300 tokens (docs/performance-gpu.md), so the more row tiles share
  /// the pieces, the longer they are.
  public init(device: CUDADevice, latentHeadCount: Int, queryLength: Int = 1) {
    let tiles = Int(nb_row_tiles(Int32(clamping: latentHeadCount), Int32(clamping: queryLength), NB_LATENT_ROWS))
    let target = max(1, min(Int(NB_MAXIMUM_SPLITS), device.multiprocessorCount / max(tiles, 1)))
    self.init(target: target, minimumTokens: 512 * max(tiles, 1))
  }

  /// Splits of a request of this many tokens in latent attention.
  public func latentCount(contextLength: Int) -> Int {
    Int(nb_split_count(Int32(clamping: contextLength), Int32(clamping: target), Int32(clamping: minimumTokens)))
  }

  /// The most splits of any request up to this length in latent attention.
  package func maximumLatentCount(contextLength: Int) -> Int {
    Int(
      nb_maximum_split_count(
        Int32(clamping: contextLength), Int32(clamping: target), Int32(clamping: minimumTokens)))
  }
}
