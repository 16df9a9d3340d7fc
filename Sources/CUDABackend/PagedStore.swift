import CKernelSources
import CUDASupport
import KVQuantization
import PagedCache

/// Stores rows of keys and values: encodes them, byte for byte as the CPU does, and scatters them to their slots, in one launch.
public struct PagedStore: Sendable {
  public let layout: MHALayout
  public let rowType: ActivationType
  public let kernel: Kernel

  /// Addresses in GPU memory, and strides, of one run.
  public struct Call: Hashable, Sendable {
    /// [rows, kvHeadCount, head_dim]
    public var keys: UInt64
    public var values: UInt64
    /// [rows] int32: page * page size + place in the page; negative for rows to skip.
    public var slots: UInt64
    /// Page 0's record of the layer.
    public var cache: UInt64
    public var pageStride: Int
    public var rows: Int
    public var scales: DecodeScales
    /// uint64 count of NaN and infinities, added to; 0 if not wanted.
    public var replacedCount: UInt64 = 0
    /// Elements from row to row; nil for rows without gaps.
    public var keyStride: Int?
    public var valueStride: Int?

    public init(
      keys: UInt64, values: UInt64, slots: UInt64, cache: UInt64, pageStride: Int, rows: Int, scales: DecodeScales
    ) {
      self.keys = keys
      self.values = values
      self.slots = slots
      self.cache = cache
      self.pageStride = pageStride
      self.rows = rows
      self.scales = scales
    }
  }

  public static func instance(layout: MHALayout, rowType: ActivationType) -> KernelInstance {
    KernelInstance(
      file: "store.cu", entry: "nb_store",
      defines: [
        .init("NB_RECIPE_K", layout.recipeK.rawValue), .init("NB_RECIPE_V", layout.recipeV.rawValue),
        .init("NB_DIM", layout.headDimension), .init("NB_ROW_TYPE", rowType.rawValue),
      ])
  }

  /// - Throws: `.invalidPlan` with every reason why the kernels can't serve the layout, `.compilation`.
  public init(layout: MHALayout, rowType: ActivationType, library: KernelLibrary) throws(CUDAError) {
    try CUDAAttention.validate(layout: layout, queryHeadCount: layout.kvHeadCount)
    self.layout = layout
    self.rowType = rowType
    kernel = try library.kernel(Self.instance(layout: layout, rowType: rowType))
  }

  /// Queues one launch; no rows, no launch.
  public func run(_ call: Call, on stream: borrowing CUDAStream) throws(CUDAError) {
    guard call.rows > 0 else { return }
    let row = Int64(layout.kvHeadCount * layout.headDimension)
    let arguments = nb_store_arguments(
      keys: call.keys, values: call.values, slots: call.slots, cache: call.cache, replaced: call.replacedCount,
      page_stride: Int64(call.pageStride), key_stride: call.keyStride.map { Int64($0) } ?? row,
      value_stride: call.valueStride.map { Int64($0) } ?? row, page_shift: layout.pageShift,
      rows: Int32(clamping: call.rows), kv_heads: Int32(layout.kvHeadCount), dim: Int32(layout.headDimension),
      key_scale: layout.recipeK.usesDecodeScale ? call.scales.key : 1,
      value_scale: layout.recipeV.usesDecodeScale ? call.scales.value : 1)
    let shape = layout.rowLaunchShape(tokens: call.rows, device: kernel.context.device)
    let rowType = rowType
    let layout = layout
    try kernel.launch(
      arguments, shape: shape, on: stream
    ) {
      """
      \(call.rows) rows of \(layout.kernelDescription), \(rowType.name) keys at \(call.keys) and values at \(call.values), \
      slots at \(call.slots), cache at \(call.cache)
      """
    }
  }
}
