import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

/// The store kernel of latents and rotary keys against the CPU's encoders, byte for byte, in a poisoned cache.
enum LatentStoreChecks {
  static func all(quick: Bool) -> [DeviceCase] {
    var cases: [DeviceCase] = []
    for (turn, recipe) in CUDAAttention.recipes.enumerated() {
      for rope in quick || recipe == .bf16 ? [KVRecipe.bf16] : [.bf16, recipe] {
        for type in quick ? [.bf16] : ActivationType.allCases {
          cases.append(check(recipe, rope, pageSize: CUDAAttention.pageSizes[turn % 4], type: type))
        }
      }
    }
    return cases
  }

  private static func check(
    _ recipe: KVRecipe, _ ropeRecipe: KVRecipe, pageSize: Int, type: ActivationType
  ) -> DeviceCase {
    let name = "check/latent-store/\(recipe.name)-\(ropeRecipe.name)/p\(pageSize)/\(type.name)"
    var setting = LatentChecks.Setting()
    setting.recipe = recipe
    setting.ropeRecipe = ropeRecipe
    setting.pageSize = pageSize
    return DeviceCase(name: name) {
      try setting.layout()
    } instances: {
      [PagedLatentStore.instance(layout: $0, rowType: type)]
    } run: { layout, bench in
      try run(layout, type, seed: DeviceCase.seed(name), bench)
    }
  }

  private static func run(
    _ layout: MLALayout, _ type: ActivationType, seed: UInt64, _ bench: DeviceBench
  ) throws -> CaseResult {
    var random = RandomNumbers(seed: seed)
    let (pageCount, poison) = (5, UInt8(0xa5))
    let scales = DecodeScales(key: 0.0021, value: 0.0037)
    let slots = StoreChecks.slots(pageCount * layout.pageSize, &random)
    let latents = StoreChecks.rows(slots.count, layout.latentDimension, &random).map { type.rounded($0) }
    let ropes = StoreChecks.rows(slots.count, layout.ropeDimension, &random).map { type.rounded($0) }

    // The CPU's side: canonical rows, then the kernels' byte order.
    let converter = LatentRecordConverter(layout: layout)
    var statistics = EncodeStatistics()
    var expected = [[UInt8]](
      repeating: [UInt8](repeating: poison, count: layout.pageSize * layout.bytesPerToken), count: pageCount)
    for (row, slot) in slots.enumerated() where slot >= 0 {
      for (isLatent, recipe, source, scale, width) in [
        (true, layout.recipeLatent, latents, scales.key, layout.latentDimension),
        (false, layout.recipeRope, ropes, scales.value, layout.ropeDimension),
      ] {
        let encoded = try recipe.encode(Array(source[row * width..<(row + 1) * width]), decodeScale: scale)
        statistics += encoded.statistics
        expected[Int(slot) / layout.pageSize].withUnsafeMutableBufferPointer { record in
          guard let target = record.baseAddress else { return }
          converter.scatter(
            codes: encoded.row.codes, scales: encoded.row.scales, isLatent: isLatent,
            token: Int(slot) % layout.pageSize, into: target)
        }
      }
    }

    let store = try PagedLatentStore(layout: layout, rowType: type, library: bench.library)
    let pool = try DevicePagePool(
      bench.context, layout: .mla(layout), layerCount: 1, pageCount: pageCount, scales: [scales])
    try pool.fill(byte: poison, on: bench.stream)
    let deviceLatents = try DeviceBuffer<UInt8>.holding(type.bytes(latents), on: bench.stream)
    let deviceRopes = try DeviceBuffer<UInt8>.holding(type.bytes(ropes), on: bench.stream)
    let deviceSlots = try DeviceBuffer<Int32>.holding(slots, on: bench.stream)
    let replaced = try DeviceBuffer<UInt64>.holding([0], on: bench.stream)
    var call = PagedStore.Call(
      keys: deviceLatents.address, values: deviceRopes.address, slots: deviceSlots.address,
      cache: try pool.address(layer: 0), pageStride: pool.pageStride, rows: slots.count, scales: scales)
    call.replacedCount = replaced.address
    try store.run(call, on: bench.stream)

    var result = try StoreChecks.compare(
      pool, to: expected, replaced: replaced, statistics: statistics, on: bench.stream)
    result.line.add("rows", slots.count)
    return result
  }
}
