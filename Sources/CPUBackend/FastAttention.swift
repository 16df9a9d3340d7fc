import CSIMD
import KVQuantization
import Operators
import PagedCache

/// Attention by CSIMD's kernels: four-bit codes are multiplied as they are stored, all query heads of a KV head in one pass.
///
/// The context is cut at fixed positions and merged in a fixed order, so a row's bits depend on its query, its position and the
/// stored bytes only: not on the batch, the chunk of a prefill, the worker pool or the order of work.
public final class FastAttention: AttentionBackend {
  public let name = "cpu"
  public let workers: WorkerPool
  public let level: nb_level
  public let precision: AttentionPrecision

  private var scratch = GrowingBuffer()
  private var partials = GrowingBuffer()
  private var pieces: [nb_attention_piece] = []
  private var items: [nb_attention_item] = []
  private var merges: [nb_attention_item] = []

  public init(workers: WorkerPool, level: nb_level = nb_level_active(), precision: AttentionPrecision = .full) {
    self.workers = workers
    self.level = level
    self.precision = precision
  }

  /// True if the kernels read the layout: dimensions are multiples of 16. The support registry lets no other through.
  public static func supports(_ layout: CacheLayout) -> Bool {
    supports(layout.regions)
  }

  private static func supports(_ regions: [CacheRegion]) -> Bool { regions.allSatisfy { $0.dimension % 16 == 0 } }

  public func attend(_ call: AttentionCall, batch: StepBatch, pool: PagePool) {
    precondition(
      Self.supports(pool.regions),
      "expected dimensions that are multiples of 16; what the support registry admits at start-up has no others")
    batch.pageTables.withUnsafeBufferPointer { pages in
      guard let pages = pages.baseAddress else { return }
      plan(call, batch: batch, pool: pool, pages: pages)
      execute()
    }
  }

  // MARK: Planning

  /// Cuts the step into pieces of up to 64 query rows, and the pieces' contexts into items for the workers.
  private func plan(_ call: AttentionCall, batch: StepBatch, pool: PagePool, pages: UnsafePointer<Int32>) {
    pieces.removeAll(keepingCapacity: true)
    items.removeAll(keepingCapacity: true)
    merges.removeAll(keepingCapacity: true)
    for head in 0..<Self.headCount(pool.layout) {
      let template = template(call, pool: pool, head: head)
      let group = call.queryHeadCount / Self.headCount(pool.layout)
      // Groups that fill a piece alone are cut by heads, others carry as many tokens as fit.
      let headsPerPiece = min(group, Int(NB_ATTENTION_ROWS))
      for first in stride(from: 0, to: group, by: headsPerPiece) {
        var piece = template
        piece.heads = Int32(min(headsPerPiece, group - first))
        appendPieces(piece, firstHead: head * group + first, call: call, batch: batch, pages: pages)
      }
    }
    appendItems()
  }

  private static func headCount(_ layout: CacheLayout) -> Int {
    switch layout {
    case .mha(let layout): layout.kvHeadCount
    case .mla: 1
    }
  }

  /// What all pieces of a KV head have in common.
  private func template(_ call: AttentionCall, pool: PagePool, head: Int) -> nb_attention_piece {
    var piece = nb_attention_piece()
    piece.level = level
    piece.precision = precision == .fast ? NB_PRECISION_FAST : NB_PRECISION_FULL
    piece.page_size = Int32(pool.layout.pageSize)
    piece.records = UnsafePointer(pool.record(page: 0, layer: call.layer).assumingMemoryBound(to: UInt8.self))
    piece.record_stride = Int64(pool.pageBytes)
    piece.softmax_scale = call.softmaxScale
    piece.query_stride = Int64(call.queryStride)
    piece.output_stride = Int64(call.outputStride)
    for region in pool.regions where region.head == head {
      let view = nb_attention_region(
        recipe: nb_recipe(UInt32(region.recipe.rawValue)), dimension: Int32(region.dimension),
        code_offset: Int64(region.codeOffset), scale_offset: Int64(region.scaleOffset),
        decode_scale: region.recipe.usesDecodeScale ? pool.decodeScale(layer: call.layer, kind: region.kind) : 1)
      switch region.kind {
      case .key: piece.key = view
      case .value: piece.value = view
      case .rope: piece.rope = view
      case .latent:
        piece.key = view
        piece.value = view
        piece.is_latent = 1
      }
    }
    return piece
  }

  private func appendPieces(
    _ template: nb_attention_piece, firstHead: Int, call: AttentionCall, batch: StepBatch, pages: UnsafePointer<Int32>
  ) {
    let queryWidth = Int(template.key.dimension + template.rope.dimension)
    let tokensPerPiece = max(1, Int(NB_ATTENTION_ROWS) / Int(template.heads))
    for sequence in 0..<batch.sequenceCount {
      let rows = Int(batch.queryOffsets[sequence])..<Int(batch.queryOffsets[sequence + 1])
      // The last tokens see the most, so their pieces start first.
      for end in stride(from: rows.upperBound, to: rows.lowerBound, by: -tokensPerPiece) {
        let start = max(rows.lowerBound, end - tokensPerPiece)
        var piece = template
        piece.tokens = Int32(end - start)
        piece.first_position = batch.positions[start]
        piece.pages = pages + Int(batch.pageTableOffsets[sequence])
        piece.queries = call.queries + start * call.queryStride + firstHead * queryWidth
        piece.output = call.output + start * call.outputStride + firstHead * Int(template.value.dimension)
        pieces.append(piece)
      }
    }
  }

  /// Chunks of a piece's last row, which sees the most.
  private func chunkCount(_ piece: nb_attention_piece) -> Int {
    (Int(piece.first_position + piece.tokens) - 1) / Int(NB_ATTENTION_CHUNK) + 1
  }

  /// Unmerged results of a piece whose context is split.
  private func partialFloats(_ piece: nb_attention_piece) -> Int {
    chunkCount(piece) * Int(piece.tokens * piece.heads) * Int(nb_attention_partial_stride(piece.value.dimension))
  }

  /// Splitting contexts balances the workers, but not at the price of more memory than this (64 MiB).
  private static let mostPartialFloats = 16 << 20

  /// Hands whole contexts to the workers where there are pieces enough, and runs of chunks where not.
  private func appendItems() {
    let threads = workers.threadCount
    let total = pieces.reduce(0) { $0 + chunkCount($1) }
    // Sixteen items for each worker balance them; two chunks are worth an item's cold start, if four items are left.
    let chunksPerItem = max(1, min(total / (threads * 4), 2), min(total / (threads * 16), 64))
    let isSplit: Bool
    switch pieces.count {
    case ..<threads: isSplit = threads > 1
    case ..<(threads * 8): isSplit = pieces.reduce(0) { $0 + partialFloats($1) } <= Self.mostPartialFloats
    default: isSplit = false
    }
    var partialCount = 0
    for index in pieces.indices {
      let chunks = chunkCount(pieces[index])
      guard isSplit, chunks > chunksPerItem else {
        items.append(nb_attention_item(piece: Int32(index), first: 0, last: Int32(chunks)))
        continue
      }
      for first in stride(from: 0, to: chunks, by: chunksPerItem) {
        items.append(
          nb_attention_item(
            piece: Int32(index), first: Int32(first), last: Int32(min(chunks, first + chunksPerItem))))
      }
      let rows = pieces[index].tokens * pieces[index].heads
      for first in stride(from: Int32(0), to: rows, by: 4) {
        merges.append(nb_attention_item(piece: Int32(index), first: first, last: min(rows, first + 4)))
      }
      partialCount += partialFloats(pieces[index])
    }
    var partial = partials.reserve(partialCount * MemoryLayout<Float>.stride).assumingMemoryBound(to: Float.self)
    var last: Int32 = -1
    for merge in merges where merge.piece != last {
      last = merge.piece
      pieces[Int(last)].partials = partial
      partial += partialFloats(pieces[Int(last)])
    }
  }

  private func execute() {
    guard var first = pieces.first else { return }
    let stride = (Int(nb_attention_scratch_bytes(&first)) + 4095) / 4096 * 4096 + 64
    let memory = scratch.reserve(stride * workers.threadCount).assumingMemoryBound(to: UInt8.self)
    let runCount = Int32(items.count)
    items.append(contentsOf: merges)
    pieces.withUnsafeBufferPointer { pieces in
      items.withUnsafeBufferPointer { items in
        var plan = nb_attention_plan(
          pieces: pieces.baseAddress, items: items.baseAddress, run_count: runCount,
          merge_count: Int32(merges.count), scratch: memory, scratch_stride: Int64(stride))
        nb_attention_execute(&plan, workers.workers)
      }
    }
  }
}

/// Memory that only grows, so that a steady state allocates nothing. 64-byte aligned, contents are lost when it grows.
struct GrowingBuffer: ~Copyable {
  private var base = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
  private var byteCount = 64

  deinit { base.deallocate() }

  mutating func reserve(_ count: Int) -> UnsafeMutableRawPointer {
    if count > byteCount {
      base.deallocate()
      base = .allocate(byteCount: count, alignment: 64)
      byteCount = count
    }
    return base
  }
}
