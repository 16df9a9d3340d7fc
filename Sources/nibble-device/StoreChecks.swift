import CSIMD
import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

/// The store kernel against the CPU's encoders, byte for byte, in a poisoned cache: what it must write, and nothing else.
enum StoreChecks {
  static func all(quick: Bool) -> [DeviceCase] {
    var cases: [DeviceCase] = []
    var turn = 0
    for recipe in CUDAAttention.recipes {
      for dimension in quick ? [128] : CUDAAttention.headDimensions {
        for type in quick ? [.bf16] : ActivationType.allCases {
          let page = CUDAAttention.pageSizes[turn % 4]
          turn += 1
          cases.append(check(recipe, recipe, dimension: dimension, pageSize: page, heads: 1 + turn % 3, type: type))
        }
      }
    }
    // Enough blocks for the rare ones, whose two scales are as good but for a hair.
    for recipe in [KVRecipe.nvfp4, .nvfp4FourOverSix] {
      for type in quick ? [.bf16] : ActivationType.allCases {
        cases.append(
          check(recipe, recipe, dimension: 128, pageSize: 64, heads: 8, type: type, pageCount: quick ? 8 : 64))
      }
    }
    cases.append(check(.nvfp4, .fp8E4M3, dimension: 128, pageSize: 64, heads: 2, type: .bf16))
    cases.append(check(.bf16, .mxfp4, dimension: 192, pageSize: 16, heads: 2, type: .f32))
    return cases
  }

  private static func check(
    _ recipeK: KVRecipe, _ recipeV: KVRecipe, dimension: Int, pageSize: Int, heads: Int, type: ActivationType,
    pageCount: Int = 5
  ) -> DeviceCase {
    let name = "check/store/\(recipeK.name)-\(recipeV.name)/d\(dimension)/p\(pageSize)/hk\(heads)/\(type.name)"
    return DeviceCase(name: name) {
      try MHALayout(
        kvHeadCount: heads, headDimension: dimension, pageSize: pageSize, recipeK: recipeK, recipeV: recipeV)
    } instances: {
      [PagedStore.instance(layout: $0, rowType: type)]
    } run: { layout, bench in
      try run(layout, type, pageCount: pageCount, seed: DeviceCase.seed(name), bench)
    }
  }

  private static func run(
    _ layout: MHALayout, _ type: ActivationType, pageCount: Int, seed: UInt64, _ bench: DeviceBench
  ) throws -> CaseResult {
    var random = RandomNumbers(seed: seed)
    let poison = UInt8(0xa5)
    let scales = DecodeScales(key: 0.0021, value: 0.0037)
    let slots = slots(pageCount * layout.pageSize, &random)
    let width = layout.kvHeadCount * layout.headDimension
    let keys = rows(slots.count, width, &random).map { type.rounded($0) }
    let values = rows(slots.count, width, &random).map { type.rounded($0) }

    // The CPU's side: canonical rows, then the kernels' byte order.
    let converter = RecordConverter(layout: layout)
    var statistics = EncodeStatistics()
    var expected = [[UInt8]](
      repeating: [UInt8](repeating: poison, count: layout.pageSize * layout.bytesPerToken), count: pageCount)
    for (row, slot) in slots.enumerated() where slot >= 0 {
      let (page, token) = (Int(slot) / layout.pageSize, Int(slot) % layout.pageSize)
      for head in 0..<layout.kvHeadCount {
        let range = row * width + head * layout.headDimension..<row * width + (head + 1) * layout.headDimension
        for (isKey, recipe, source, scale) in [
          (true, layout.recipeK, keys, scales.key), (false, layout.recipeV, values, scales.value),
        ] {
          let encoded = try recipe.encode(Array(source[range]), decodeScale: scale)
          statistics += encoded.statistics
          expected[page].withUnsafeMutableBufferPointer { record in
            guard let target = record.baseAddress else { return }
            converter.scatter(
              codes: encoded.row.codes, scales: encoded.row.scales, isKey: isKey, head: head, token: token, into: target
            )
          }
        }
      }
    }

    let store = try PagedStore(layout: layout, rowType: type, library: bench.library)
    let pool = try DevicePagePool(
      bench.context, layout: layout, layerCount: 1, pageCount: pageCount, scales: [scales])
    try pool.fill(byte: poison, on: bench.stream)
    let deviceKeys = try DeviceBuffer<UInt8>.holding(type.bytes(keys), on: bench.stream)
    let deviceValues = try DeviceBuffer<UInt8>.holding(type.bytes(values), on: bench.stream)
    let deviceSlots = try DeviceBuffer<Int32>.holding(slots, on: bench.stream)
    let replaced = try DeviceBuffer<UInt64>.holding([0], on: bench.stream)
    var call = PagedStore.Call(
      keys: deviceKeys.address, values: deviceValues.address, slots: deviceSlots.address,
      cache: try pool.address(layer: 0), pageStride: pool.pageStride, rows: slots.count, scales: scales)
    call.replacedCount = replaced.address
    try store.run(call, on: bench.stream)

    var result = try compare(
      pool, to: expected, replaced: replaced, statistics: statistics, on: bench.stream)
    result.line.add("rows", slots.count)
    result.line.add("bytes", pageCount * layout.pageSize * layout.bytesPerToken)
    return result
  }

  /// Every byte of the pages against what they must be, and the count of values that had to be replaced.
  static func compare(
    _ pool: borrowing DevicePagePool, to expected: [[UInt8]], replaced: borrowing DeviceBuffer<UInt64>,
    statistics: EncodeStatistics, on stream: borrowing CUDAStream
  ) throws(CUDAError) -> CaseResult {
    var wrong = 0
    var first: String?
    for page in expected.indices {
      let found = try pool.record(page: page, on: stream)
      for index in 0..<found.count where found[index] != expected[page][index] {
        wrong += 1
        first = first ?? "page \(page), byte \(index): found \(found[index]), expected \(expected[page][index])"
      }
    }
    let count = try replaced.array(on: stream)[0]
    if count != statistics.replacedNonfinite {
      first = first ?? "counted \(count) non-finite values, expected \(statistics.replacedNonfinite)"
    }
    var result = CaseResult(passed: first == nil, failure: first)
    result.line.add("wrong_bytes", wrong)
    result.line.add("nonfinite", Int(count))
    return result
  }

  /// Three of four of `capacity` slots, each once: half of them in whole tiles, which are stored as one piece; one tile that lacks a
  /// row; one that begins in the middle of two; the rest in any order, with some rows to skip.
  static func slots(_ capacity: Int, _ random: inout RandomNumbers) -> [Int32] {
    let tiles = Array(0..<capacity / 16).shuffled(using: &random).map { Int32($0 * 16) }
    let whole = tiles.prefix(tiles.count / 2).flatMap { Array($0..<$0 + 16) }
    var rest = Array(tiles.dropFirst(tiles.count / 2).flatMap { Array($0..<$0 + 16) })
    let holed = rest.prefix(16).enumerated().map { $0.offset == 7 ? -1 : $0.element }
    rest.removeFirst(16)
    rest.shuffle(using: &random)
    let scattered = rest[..<(rest.count - capacity / 4)].map { $0 % 11 == 3 ? -1 - $0 : $0 }
    // Behind eight other rows, tiles in order are not whole ones.
    let last = whole.count - (tiles.count < 8 ? 0 : 32)
    var slots = Array(whole[..<last])
    slots += holed
    slots += scattered[..<8]
    slots += whole[last...]
    slots += scattered[8...]
    return slots + [-1]
  }

  /// Rows of every kind: ordinary, tiny, huge, zero, with exact ties, with NaN and infinities.
  static func rows(_ count: Int, _ width: Int, _ random: inout RandomNumbers) -> [Float] {
    var values: [Float] = []
    values.reserveCapacity(count * width)
    for row in 0..<count {
      let scale: Float = [1, 1, 0.02, 300, 1e-4, 1, 0x1p-130, 40][row % 8]
      for _ in 0..<width {
        var value = random.normal() * scale
        if row % 13 == 5 { value = 0 }
        if row % 17 == 4 { value = (value * 4).rounded() / 4 }
        let chance = random.next() % 4096
        if row % 19 == 7, chance < 8 { value = [.nan, .infinity, -.infinity, -0.0][Int(chance) % 4] }
        values.append(value)
      }
    }
    return values
  }
}
