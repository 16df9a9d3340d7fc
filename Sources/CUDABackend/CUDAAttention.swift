import CKernelSources
import CUDASupport
import KVQuantization
import PagedCache

/// What the CUDA attention kernels can do, as data: the resolver, error messages, `nibble backends` and tests read it here.
public enum CUDAAttention {
  /// The name that `--attention-backend` takes.
  public static let name = "cuda"
  /// Recipes whose codes the kernels decode in registers.
  public static let recipes: [KVRecipe] = [.bf16, .fp8E4M3, .nvfp4, .nvfp4FourOverSix, .fp4MXBlock16, .mxfp4]
  public static let headDimensions = [64, 96, 128, 192, 256]
  public static let pageSizes = [16, 32, 64, 128]
  /// Query heads that share a KV head.
  public static let groupSizes = 1...16
  /// New tokens a request may bring to a decode launch (speculative verification); longer chunks are prefill.
  public static let queryLengths = 1...8
  public static let maximumBatch = Int(NB_MAXIMUM_BATCH)
  /// Targets for which the same sources are compiled; the first is tuned, the others are only built.
  public static let architectures = ["sm_90a", "sm_80", "sm_100a", "sm_120a"]

  /// All reasons why the kernels can't serve a cache of this layout; empty if they can.
  public static func obstacles(layout: CacheLayout, queryHeadCount: Int) -> [String] {
    switch layout {
    case .mha(let layout): obstacles(layout: layout, queryHeadCount: queryHeadCount)
    case .mla(let layout): obstacles(layout: layout, queryHeadCount: queryHeadCount)
    }
  }

  private static func obstacles(layout: MHALayout, queryHeadCount: Int) -> [String] {
    var reasons: [String] = []
    for (what, recipe) in [("keys", layout.recipeK), ("values", layout.recipeV)] where !recipes.contains(recipe) {
      reasons.append(
        "\(what) in \(recipe.name): expected one of \(recipes.map(\.name).joined(separator: ", ")); try --kv-cache-dtype nvfp4"
      )
    }
    if !headDimensions.contains(layout.headDimension) {
      reasons.append(
        "a head dimension of \(layout.headDimension): expected one of \(list(headDimensions)); try the cpu backend")
    }
    if !pageSizes.contains(layout.pageSize) {
      reasons.append("a page size of \(layout.pageSize): expected one of \(list(pageSizes)); try --page-size 64")
    }
    let group = queryHeadCount / layout.kvHeadCount
    if queryHeadCount <= 0 || queryHeadCount % layout.kvHeadCount != 0 || !groupSizes.contains(group) {
      reasons.append(
        """
        \(queryHeadCount) query heads over \(layout.kvHeadCount) KV heads: expected a whole number of query heads a KV head, \
        \(groupSizes.lowerBound) to \(groupSizes.upperBound); try the cpu backend
        """)
    }
    return reasons
  }

  /// Every kernel for equal recipes of keys and values: what must compile for every architecture.
  public static var instances: [KernelInstance] {
    var instances: [KernelInstance] = []
    for recipe in recipes {
      for dimension in headDimensions {
        guard
          let layout = try? MHALayout(
            kvHeadCount: 1, headDimension: dimension, pageSize: 64, recipeK: recipe, recipeV: recipe)
        else { continue }
        for instance in [
          PagedDecode.instance(layout: layout, queryRows: 8), PagedDecode.instance(layout: layout, queryRows: 16),
          PagedDequantize.instance(layout: layout),
        ] + ActivationType.allCases.map({ PagedStore.instance(layout: layout, rowType: $0) })
        where !instances.contains(instance) { instances.append(instance) }
      }
    }
    return instances + latentInstances
  }

  static func validate(layout: MHALayout, queryHeadCount: Int) throws(CUDAError) {
    try validate(layout: .mha(layout), queryHeadCount: queryHeadCount)
  }

  static func validate(layout: CacheLayout, queryHeadCount: Int) throws(CUDAError) {
    let reasons = obstacles(layout: layout, queryHeadCount: queryHeadCount)
    if !reasons.isEmpty {
      throw .invalidPlan("the CUDA kernels can't serve this cache: \(reasons.joined(separator: "; "))")
    }
  }

  static func list(_ numbers: [Int]) -> String { numbers.map { "\($0)" }.joined(separator: ", ") }
}

/// Element types of queries, new rows and results.
public enum ActivationType: Int32, CaseIterable, Hashable, Sendable {
  case f32 = 0
  case bf16 = 1
  case f16 = 2

  public var byteCount: Int { self == .f32 ? 4 : 2 }

  public var name: String {
    switch self {
    case .f32: "f32"
    case .bf16: "bf16"
    case .f16: "f16"
    }
  }
}

extension KVRecipe {
  /// The recipe whose decoder reads this one's bytes: four-over-six differs in the encoder only.
  var decoder: KVRecipe { self == .nvfp4FourOverSix ? .nvfp4 : self }
}

extension MHALayout {
  /// log2 of the page size, for those that the kernels take.
  var pageShift: Int32 { Int32(pageSize.trailingZeroBitCount) }

  /// "4 KV heads of 128, pages of 64, nvfp4/nvfp4": for launch descriptions.
  var kernelDescription: String {
    "\(kvHeadCount) KV heads of \(headDimension), pages of \(pageSize), \(recipeK.name)/\(recipeV.name)"
  }

  /// Blocks of the kernels that store or dequantise rows: each takes a tile of one head at a time, heads along y.
  func rowLaunchShape(tokens: Int, device: CUDADevice) -> LaunchShape {
    let tiles = (tokens + Int(NB_TILE_TOKENS) - 1) / Int(NB_TILE_TOKENS)
    let threads = Int(nb_row_threads(Int32(headDimension)))
    // Four times what is resident at once: enough to even out, few enough not to matter.
    let most = device.multiprocessorCount * (2048 / threads) * 4
    return LaunchShape(grid: .init(min(tiles, max(most / kvHeadCount, 1)), kvHeadCount), block: .init(threads))
  }
}
