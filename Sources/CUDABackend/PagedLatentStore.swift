import CKernelSources
import CUDASupport
import KVQuantization
import PagedCache

/// Stores rows of latents and rotary keys: encodes them, byte for byte as the CPU does, and scatters them to their slots, in one
/// launch.
public struct PagedLatentStore: Sendable {
  public let layout: MLALayout
  public let rowType: ActivationType
  public let kernel: Kernel

  public static func instance(layout: MLALayout, rowType: ActivationType) -> KernelInstance {
    KernelInstance(
      file: "latent_store.cu", entry: "nb_latent_store",
      defines: [
        .init("NB_RECIPE_LATENT", layout.recipeLatent.rawValue), .init("NB_RECIPE_ROPE", layout.recipeRope.rawValue),
        .init("NB_ROW_TYPE", rowType.rawValue),
      ])
  }

  /// - Throws: `.invalidPlan` with every reason why the kernels can't serve the layout, `.compilation`.
  public init(layout: MLALayout, rowType: ActivationType, library: KernelLibrary) throws(CUDAError) {
    try CUDAAttention.validate(layout: .mla(layout), queryHeadCount: 1)
    self.layout = layout
    self.rowType = rowType
    kernel = try library.kernel(Self.instance(layout: layout, rowType: rowType))
  }

  /// Queues one launch; no rows, no launch.
  /// - Parameter call: its keys are latents, [rows, 512], its values rotary keys, [rows, 64]; likewise its scales.
  public func run(_ call: PagedStore.Call, on stream: borrowing CUDAStream) throws(CUDAError) {
    guard call.rows > 0 else { return }
    let arguments = nb_latent_store_arguments(
      latents: call.keys, ropes: call.values, slots: call.slots, cache: call.cache, replaced: call.replacedCount,
      page_stride: Int64(call.pageStride), latent_stride: Int64(call.keyStride ?? layout.latentDimension),
      rope_stride: Int64(call.valueStride ?? layout.ropeDimension), page_shift: layout.pageShift,
      rows: Int32(clamping: call.rows),
      latent_scale: layout.recipeLatent.usesDecodeScale ? call.scales.key : 1,
      rope_scale: layout.recipeRope.usesDecodeScale ? call.scales.value : 1)
    let tiles = (call.rows + Int(NB_TILE_TOKENS) - 1) / Int(NB_TILE_TOKENS)
    let warps = tiles * Int(NB_LATENT_DIM + NB_ROPE_DIM) / 32
    let blocks = (warps * 32 + Int(NB_LATENT_STORE_THREADS) - 1) / Int(NB_LATENT_STORE_THREADS)
    // Twice what is resident at once: a warp takes several tiles, one after the other.
    let most = kernel.context.device.multiprocessorCount * (2048 / Int(NB_LATENT_STORE_THREADS))
    let shape = LaunchShape(grid: .init(min(blocks, most)), block: .init(Int(NB_LATENT_STORE_THREADS)))
    let (rowType, layout) = (rowType, layout)
    try kernel.launch(arguments, shape: shape, on: stream) {
      """
      \(call.rows) rows of \(layout.kernelDescription), \(rowType.name) latents at \(call.keys) and rotary keys at \
      \(call.values), slots at \(call.slots), cache at \(call.cache)
      """
    }
  }
}
